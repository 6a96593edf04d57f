"""Every model is offered once per period, so that a lost event costs minutes at most; liveness follows from it."""

from __future__ import annotations

import asyncio
import logging
import time

from minisgl_operator.cluster import Cluster
from minisgl_operator.errors import ApiError
from minisgl_operator.metrics import Metrics
from minisgl_operator.queue import Queue

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5.0


class Resync:
    """Lists the models periodically. `age` is the time since that last worked."""

    def __init__(self, cluster: Cluster, queue: Queue, metrics: Metrics, period_seconds: float) -> None:
        self._cluster = cluster
        self._queue = queue
        self._metrics = metrics
        self._period_seconds = period_seconds
        self._heard = time.monotonic()

    def age(self) -> float:
        """Seconds since the models were listed."""
        return time.monotonic() - self._heard

    def is_stale(self) -> bool:
        """Whether two periods have passed without a list."""
        return self.age() > 2 * self._period_seconds

    async def run(self) -> None:
        """List and offer for ever."""
        while True:
            succeeded = await self.once()
            await asyncio.sleep(self._period_seconds if succeeded else RETRY_SECONDS)

    async def once(self) -> bool:
        """List and offer; False if the API server did not answer."""
        try:
            keys = await self._cluster.models()
        except ApiError as error:
            logger.warning("resync failed: %s", error)
            return False
        self._heard = time.monotonic()
        self._metrics.last_resync.set_to_current_time()
        for key in keys:
            self._queue.offer(key)
        return True
