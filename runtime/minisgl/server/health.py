"""What the probes say. Reads heartbeats and the state of the start; never enters the request path."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Literal

from minisgl.info import Place, ServerInfo, StartInfo
from minisgl.process import READY, Heartbeats, Progress

State = Literal["starting", "ready", "draining", "failed"]


class Health:
    """The server's state as the front end knows it. A heartbeat older than `fresh_seconds` means a hang."""

    def __init__(self, heartbeats: Heartbeats, names: tuple[str, ...], fresh_seconds: float) -> None:
        self._heartbeats, self._names, self._fresh_seconds = heartbeats, names, fresh_seconds
        self._progress: dict[str, Progress] = {}
        self._advanced_at = time.monotonic()
        self.state: State = "starting"
        self.info: ServerInfo | None = None

    def enter(self, progress: Progress) -> None:
        self._progress[progress.process] = progress
        self._advanced_at = time.monotonic()

    def up(self) -> dict[str, bool]:
        """Process -> its heartbeat is fresh. A process that ended takes the server down, so it needs no check here."""
        ages = {name: self._heartbeats.age_seconds(slot) for slot, name in enumerate(self._names)}
        return {name: age < self._fresh_seconds for name, age in ages.items()}

    def livez(self) -> tuple[int, dict[str, Any]]:
        """While starting, a child may load or compile for minutes without a beat: no sign of a hang."""
        hanging = [name for name, is_up in self.up().items() if not is_up and self.state != "starting"]
        if hanging or self.state == "failed":
            return 503, {"status": "failed", "hanging": hanging}
        return 200, {"status": "ok"}

    def readyz(self) -> tuple[int, dict[str, Any]]:
        return (200 if self.state == "ready" else 503), {"status": self.state}

    def startupz(self) -> tuple[int, dict[str, Any]]:
        """How far the start is; 200 after it, with the seconds it took and what the engine became."""
        if self.info is not None and self.state != "starting":
            # Open to all, as the probes are; the launch arguments are for those who hold a key.
            started = StartInfo(status="started", startup_seconds=self.info.startup_seconds, server=self.info)
            return 200, started.model_dump(mode="json", exclude={"server": {"launch_args"}})
        now = time.monotonic()
        starting = StartInfo(
            status="starting",
            place=whole(self._progress.values(), now),
            quiet_seconds=round(now - self._advanced_at, 1),
            processes={name: told(where, now) for name, where in self._progress.items()},
        )
        return 503, starting.model_dump(mode="json")


def told(progress: Progress, now: float) -> Place:
    """One process's place in the start."""
    rate, eta = progress.rate, progress.eta_seconds
    return Place(
        phase=progress.phase,
        seconds=round(now - progress.since, 1),
        done=progress.done,
        total=progress.total,
        bytes_per_second=None if rate is None else round(rate),
        eta_seconds=None if eta is None else round(eta, 1),
    )


def whole(places: Iterable[Progress], now: float) -> Place | None:
    """The place of the one that the others wait for, with the sums over all that are in the same phase."""
    waiting = [place for place in places if place.phase != READY]
    if not waiting:
        return None
    slowest = max(waiting, key=lambda place: (place.eta_seconds or 0.0, -place.since))
    beside = [place for place in waiting if place.phase == slowest.phase and place.total is not None]
    if not beside:
        return told(slowest, now)
    rates = [place.rate for place in beside if place.rate is not None]
    total = Progress(
        slowest.process,
        slowest.phase,
        done=sum(place.done or 0 for place in beside),
        total=sum(place.total or 0 for place in beside),
        since=min(place.since for place in beside),
        rate=sum(rates) if rates else None,
        eta_seconds=slowest.eta_seconds,
    )
    return told(total, now)
