"""What the probes say. Reads heartbeats and the state of the start; never enters the request path."""

from __future__ import annotations

import time
from typing import Any, Literal

from minisgl.info import ServerInfo
from minisgl.process import Heartbeats, Progress

State = Literal["starting", "ready", "draining", "failed"]


class Health:
    """The server's state as the front end knows it. A heartbeat older than `fresh_seconds` means a hang."""

    def __init__(self, heartbeats: Heartbeats, names: tuple[str, ...], fresh_seconds: float) -> None:
        self._heartbeats, self._names, self._fresh_seconds = heartbeats, names, fresh_seconds
        self._progress: dict[str, Progress] = {}
        self.state: State = "starting"
        self.info: ServerInfo | None = None

    def enter(self, progress: Progress) -> None:
        self._progress[progress.process] = progress

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
        """Where each process is, since when and how fast; after the start, 200 and the seconds it took."""
        if self.info is not None:
            return 200, {"status": "started", "startupSeconds": self.info.startup_seconds}
        return 503, {"status": "starting", "processes": {name: told(where) for name, where in self._progress.items()}}


def told(progress: Progress) -> dict[str, Any]:
    """One process's place in the start as JSON; `done` and `total` are bytes while weights load."""
    rate, eta = progress.rate, progress.eta_seconds
    return {
        "phase": progress.phase,
        "seconds": round(time.monotonic() - progress.since, 1),
        "done": progress.done,
        "total": progress.total,
        "bytesPerSecond": None if rate is None else round(rate),
        "etaSeconds": None if eta is None else round(eta, 1),
    }
