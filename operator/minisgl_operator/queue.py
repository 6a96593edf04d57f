"""Which model is reconciled when: one at a time per key, events in between count once, failures wait longer each time.

    offer ──► ready ──► worker runs work(key) ──► done
                 ▲            │ offered meanwhile: once more      │ failed, or asked to come back: after a delay
                 └────────────┴───────────────────────────────────┘

What is urgent, a user's change, comes before the news of pods: a thousand models that start do not delay it. Nor do
changes without end delay news for ever: what waits goes by the time that it is due, and news is due a minute later.
Knows nothing of Kubernetes. The workers are plain tasks that outlive a restart of the watches.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
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
# News gives way to changes that come until this much later.
PATIENCE_SECONDS = 60.0

Work = Callable[[Key], Awaitable[float | None]]
Place = tuple[float, int]


class Queue:
    """Offers come from handlers and from the resync; `work` returns None, or seconds after which to come back."""

    def __init__(self, work: Work, metrics: Metrics) -> None:
        self._work = work
        self._metrics = metrics
        # ((when it is due, order of arrival), key). One whose place `_queued` does not hold was overtaken by its key's.
        self._ready: asyncio.PriorityQueue[tuple[Place, Key]] = asyncio.PriorityQueue()
        self._arrivals = itertools.count()
        self._queued: dict[Key, Place] = {}
        self._running: set[Key] = set()
        self._again: dict[Key, bool] = {}  # offered while it runs -> whether urgently
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}

    def offer(self, key: Key, *, urgent: bool = False) -> None:
        """Something about this model may have changed."""
        if key in self._running:
            self._again[key] = urgent or self._again.get(key, False)
        elif key not in self._failures:  # a failing key keeps its back-off; the retry sees the newest state anyway
            self._enqueue(key, urgent)

    async def run(self, num_workers: int) -> None:
        """Work for ever. May be cancelled and run again; what is offered in between waits."""
        async with asyncio.TaskGroup() as group:
            for _ in range(num_workers):
                group.create_task(self._worker())

    def _enqueue(self, key: Key, urgent: bool = False) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()
        place = (time.monotonic() + (0 if urgent else PATIENCE_SECONDS), next(self._arrivals))
        if key not in self._queued or place < self._queued[key]:
            self._queued[key] = place
            self._ready.put_nowait((place, key))
            self._metrics.queue_length.set(len(self._queued))

    async def _next(self) -> Key:
        while True:
            place, key = await self._ready.get()
            if self._queued.get(key) == place:
                del self._queued[key]
                self._metrics.queue_length.set(len(self._queued))
                return key

    async def _worker(self) -> None:
        while True:
            key = await self._next()
            self._running.add(key)
            try:
                delay = await self._once(key)
            except asyncio.CancelledError:
                self._running.discard(key)
                self._enqueue(key)  # the work was cut short; whoever runs this queue next completes it
                raise
            self._running.discard(key)
            offered = self._again.pop(key, None)
            if offered is not None and key not in self._failures:
                delay = SETTLE_SECONDS
            if delay is not None:
                loop = asyncio.get_running_loop()
                self._timers[key] = loop.call_later(delay, self._enqueue, key, offered or False)

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
