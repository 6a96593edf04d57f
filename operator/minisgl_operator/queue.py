"""Which model is reconciled when: one at a time per key, events in between count once, failures wait longer each time.

    offer ──► ready ──► worker runs work(key) ──► done
                 ▲            │ offered meanwhile: once more      │ failed, or asked to come back: after a delay
                 └────────────┴───────────────────────────────────┘

Knows nothing of Kubernetes. The workers are plain tasks that outlive a restart of the watches.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from minisgl_operator.api import Key
from minisgl_operator.errors import ApiError, Conflict, OperatorError
from minisgl_operator.metrics import Metrics

logger = logging.getLogger(__name__)

# A burst (a pod's start is several events within some milliseconds) becomes one reconcile.
SETTLE_SECONDS = 0.1
FIRST_RETRY_SECONDS = 0.5
# An API server that comes back finds us healed within this time.
LAST_RETRY_SECONDS = 15.0

Work = Callable[[Key], Awaitable[float | None]]


class Queue:
    """Offers come from handlers and from the resync; `work` returns None, or seconds after which to come back."""

    def __init__(self, work: Work, metrics: Metrics) -> None:
        self._work = work
        self._metrics = metrics
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: set[Key] = set()
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}

    def offer(self, key: Key) -> None:
        """Something about this model may have changed."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._failures:  # a failing key keeps its back-off; the retry sees the newest state anyway
            self._enqueue(key)

    async def run(self, num_workers: int) -> None:
        """Work for ever. May be cancelled and run again; what is offered in between waits."""
        async with asyncio.TaskGroup() as group:
            for _ in range(num_workers):
                group.create_task(self._worker())

    def _enqueue(self, key: Key) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if key not in self._queued:
            self._queued.add(key)
            self._ready.put_nowait(key)
            self._metrics.queue_length.set(len(self._queued))

    async def _worker(self) -> None:
        while True:
            key = await self._ready.get()
            self._queued.discard(key)
            self._metrics.queue_length.set(len(self._queued))
            self._running.add(key)
            try:
                delay = await self._once(key)
            except asyncio.CancelledError:
                self._running.discard(key)
                self._enqueue(key)  # the work was cut short; whoever runs this queue next completes it
                raise
            self._running.discard(key)
            if key in self._again and key not in self._failures:
                delay = SETTLE_SECONDS
            self._again.discard(key)
            if delay is not None:
                self._timers[key] = asyncio.get_running_loop().call_later(delay, self._enqueue, key)

    async def _once(self, key: Key) -> float | None:
        """Run the work; returns the seconds until it shall run again, if any."""
        try:
            with self._metrics.reconcile_seconds.time():
                delay = await self._work(key)
        except Exception as error:
            # One model's trouble, even a bug of ours, must not stop the others: outermost loop of a model.
            self._metrics.reconcile.labels("error").inc()
            self._failures[key] = failures = self._failures.get(key, 0) + 1
            seconds: float = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 10))
            seconds *= random.uniform(0.8, 1.2)  # noqa: S311 (spreads retries, keeps no secret)
            if isinstance(error, ApiError) and error.retry_after:
                seconds = max(seconds, min(error.retry_after, 60.0))
            known = isinstance(error, OperatorError)
            level = logging.INFO if isinstance(error, Conflict) else logging.WARNING if known else logging.ERROR
            logger.log(
                level,
                "reconcile failed model=%s retry_seconds=%.1f: %s",
                key,
                seconds,
                error,
                exc_info=None if known else error,
            )
            return seconds
        self._metrics.reconcile.labels("ok").inc()
        self._failures.pop(key, None)
        return delay
