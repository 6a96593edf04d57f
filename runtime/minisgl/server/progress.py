"""The start, told to humans: one log line per phase with its seconds; while weights load, bytes, rate and ETA."""

from __future__ import annotations

import logging
import time

from minisgl.process import Phase

EVERY_SECONDS = 3.0
GIB = 2**30

logger = logging.getLogger(__name__)


class StartLog:
    """Follows the phases of all children and keeps when each phase ended, in seconds since the server's start."""

    def __init__(self, started_at: float) -> None:
        self._started_at = started_at
        self._phases: dict[str, tuple[str, float]] = {}  # process -> phase, its beginning
        self._told_at = started_at
        self.ends: dict[str, float] = {}

    def enter(self, process: str, phase: Phase) -> None:
        """A child says where it is."""
        now = time.monotonic()
        name, since = self._phases.get(process, ("", now))
        if name != phase.name:
            self.leave(process)
            self._phases[process] = (phase.name, now)
        elif phase.done and phase.total and now - self._told_at >= EVERY_SECONDS:
            self._told_at = now
            rate = phase.done / (now - since)
            logger.info(
                "start process=%s phase=%s done=%.2fGiB total=%.2fGiB rate=%.2fGiB/s eta=%.0fs",
                *(process, phase.name, phase.done / GIB, phase.total / GIB, rate / GIB),
                max(0.0, (phase.total - phase.done) / rate),
            )

    def leave(self, process: str) -> None:
        """A child's phase is over."""
        if process not in self._phases:
            return
        name, since = self._phases.pop(process)
        now = time.monotonic()
        self.ends[name] = round(max(self.ends.get(name, 0.0), now - self._started_at), 3)
        logger.info("start process=%s phase=%s seconds=%.2f", process, name, now - since)
