"""The start, told to humans: a line per phase with its seconds; bytes, rate, ETA while weights load; and who is late.

Pure bookkeeping over the phases that children report; acts on nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from minisgl.process import Phase, Progress

EVERY_SECONDS = 3.0  # between two lines about loading
QUIET_SECONDS = 30.0  # a phase without progress for so long is told, and again after as long
GIB = 2**30
FOR_OTHERS = "frontend"  # the front end's phase until the others are ready: who is late is one of them

logger = logging.getLogger(__name__)


@dataclass
class Stay:
    """One child in one phase. `quiet_since` is when it last came forward, all in monotonic seconds."""

    phase: Phase
    since: float
    quiet_since: float
    told_at: float = 0.0  # the last line about loading
    late_at: float = 0.0  # the last line about being late

    def rate(self, now: float) -> float | None:
        """Units per second since the phase began; None before the first."""
        seconds = now - self.since
        return self.phase.done / seconds if self.phase.done and seconds > 0 else None

    def eta_seconds(self, now: float) -> float | None:
        rate = self.rate(now)
        if rate is None or self.phase.done is None or self.phase.total is None:
            return None
        return max(0.0, (self.phase.total - self.phase.done) / rate)


class StartLog:
    """Follows the phases of all children and keeps when each phase ended, in seconds since the server's start."""

    def __init__(self, started_at: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._started_at, self._clock = started_at, clock
        self._stays: dict[str, Stay] = {}
        self._advanced_at = clock()  # the last time that any child came forward
        self.ends: dict[str, float] = {}

    def enter(self, process: str, phase: Phase) -> Progress:
        """A child says where it is; returns the same for the front end, with its pace."""
        now = self._clock()
        stay = self._stays.get(process)
        if stay is None or stay.phase.name != phase.name:
            self.leave(process)
            stay = self._stays[process] = Stay(phase, now, now, told_at=now)
            self._advanced_at = now
        else:
            if phase != stay.phase:
                stay.quiet_since = self._advanced_at = now
            stay.phase = phase
            if now - stay.told_at >= EVERY_SECONDS:
                self._tell_pace(process, stay, now)
        return Progress(process, phase.name, phase.done, phase.total, stay.since, stay.rate(now), stay.eta_seconds(now))

    def leave(self, process: str) -> None:
        """A child's phase is over."""
        if (stay := self._stays.pop(process, None)) is None:
            return
        now = self._advanced_at = self._clock()
        name, seconds = stay.phase.name, now - stay.since
        self.ends[name] = round(max(self.ends.get(name, 0.0), now - self._started_at), 3)
        logger.info("start process=%s phase=%s seconds=%.2f", process, name, seconds)

    def tell_the_late(self) -> None:
        """One line for each child whose phase makes no progress: a start that hangs must be seen while it hangs."""
        now = self._clock()
        for process, stay in self._awaited().items():
            if now - max(stay.quiet_since, stay.late_at) >= QUIET_SECONDS:
                stay.late_at = now
                logger.warning(
                    "waiting process=%s phase=%s seconds=%.0f quiet=%.0f done=%s total=%s",
                    *(process, stay.phase.name, now - stay.since, now - stay.quiet_since),
                    *(stay.phase.done, stay.phase.total),
                )

    def quiet_seconds(self) -> float:
        """Since any child came forward: what one waits for may be another's."""
        return self._clock() - self._advanced_at

    def quietest(self) -> str:
        """The child that has been without progress for longest: the others wait for it, most likely."""
        waited_for = self._awaited() or self._stays
        return min(waited_for, key=lambda process: waited_for[process].quiet_since)

    def where(self, process: str) -> str:
        """For a sentence about a child's end: its phase and since when."""
        stay = self._stays.get(process)
        if stay is None:
            return f"when it was ready, before {self.unready()}"
        return f"in {_told(stay, self._clock())}"

    def unready(self) -> str:
        """For a sentence: all who are not ready, each with its phase and since when."""
        now = self._clock()
        return (
            ", ".join(f"{process} in {_told(stay, now)}" for process, stay in self._awaited().items()) or "the others"
        )

    def _awaited(self) -> dict[str, Stay]:
        return {process: stay for process, stay in self._stays.items() if stay.phase.name != FOR_OTHERS}

    def _tell_pace(self, process: str, stay: Stay, now: float) -> None:
        phase, rate, eta = stay.phase, stay.rate(now), stay.eta_seconds(now)
        if rate is None or eta is None or not phase.done or not phase.total:
            return
        stay.told_at = now
        logger.info(
            "start process=%s phase=%s done=%.2fGiB total=%.2fGiB rate=%.2fGiB/s eta=%.0fs",
            *(process, phase.name, phase.done / GIB, phase.total / GIB, rate / GIB, eta),
        )


def _told(stay: Stay, now: float) -> str:
    """`start phase weights (for 95 s, since 14:03:07Z, 5 of 100)`."""
    since = time.strftime("%H:%M:%SZ", time.gmtime(time.time() - (now - stay.since)))
    done = "" if stay.phase.total is None else f", {stay.phase.done or 0} of {stay.phase.total}"
    return f"start phase {stay.phase.name} (for {now - stay.since:.0f} s, since {since}{done})"
