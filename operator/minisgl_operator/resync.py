"""Once per period, and whenever the watches have listed anew, all models are looked at on paper; those to which
something is to be done are offered, and those that are gone. So a lost event costs minutes at most. Liveness follows
from it.

Lists cost a fraction of the reads of as many reconciles: 1,000 settled models take a second and not ten.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from minisgl_operator.api import Key
from minisgl_operator.cluster import Cluster
from minisgl_operator.errors import ApiError
from minisgl_operator.metrics import Metrics
from minisgl_operator.queue import Queue
from minisgl_operator.snapshot import Snapshot

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
# kopf tells what it has listed object by object: look once, when that has ended.
LISTED_SECONDS = 1.0

IsSettled = Callable[[Key, Snapshot], Awaitable[bool]]


class Resync:
    """Lists the models periodically. `age` is the time since that last worked."""

    def __init__(
        self,
        cluster: Cluster,
        queue: Queue,
        metrics: Metrics,
        period_seconds: float,
        is_settled: IsSettled,
        known: Callable[[], Iterable[Key]],
    ) -> None:
        self._cluster = cluster
        self._queue = queue
        self._metrics = metrics
        self._period_seconds = period_seconds
        self._is_settled = is_settled
        self._known = known
        self._heard = time.monotonic()
        self._wanted = asyncio.Event()
        self.first_look = asyncio.Event()

    def age(self) -> float:
        """Seconds since the models were listed."""
        return time.monotonic() - self._heard

    def is_stale(self) -> bool:
        """Whether two periods have passed without a list."""
        return self.age() > 2 * self._period_seconds

    def soon(self) -> None:
        """Look at all models soon: something may have changed that no event tells."""
        self._wanted.set()

    async def run(self) -> None:
        """List and offer for ever. `first_look` is set when that was tried once, or ends."""
        try:
            while True:
                succeeded = await self.once()
                self.first_look.set()
                try:
                    await asyncio.wait_for(self._wanted.wait(), self._period_seconds if succeeded else RETRY_SECONDS)
                except TimeoutError:
                    continue
                await asyncio.sleep(LISTED_SECONDS)
                self._wanted.clear()
        finally:
            self.first_look.set()

    async def once(self) -> bool:
        """List, and offer what is not settled; False if the API server did not answer."""
        try:
            keys = await self._unsettled()
        except ApiError as error:
            logger.warning("resync looks at every model by itself: %s", error)
            try:
                keys = await self._cluster.models()
            except ApiError as again:
                logger.warning("resync failed: %s", again)
                return False
        self._heard = time.monotonic()
        self._metrics.last_resync.set_to_current_time()
        for key in keys:
            self._queue.offer(key)
        return True

    async def _unsettled(self) -> list[Key]:
        snapshot = await self._cluster.snapshot()
        there = await snapshot.models()
        found = [*({*self._known()} - {*there})]  # deleted, and the event was lost
        for key in there:
            if not await self._is_settled(key, snapshot):
                found.append(key)
            await asyncio.sleep(0)  # others have their turn between two models
        return found
