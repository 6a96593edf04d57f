"""What the probes say. Reads heartbeats and the state of the start; never enters the request path."""

from __future__ import annotations

from typing import Any, Literal

from minisgl.info import ServerInfo
from minisgl.process import Heartbeats, Phase

FRESH_SECONDS = 60.0  # older heartbeats mean a hang; chunked prefill beats once per step, so no work takes so long

State = Literal["starting", "ready", "draining", "failed"]


class Health:
    """The server's state as the front end knows it."""

    def __init__(self, heartbeats: Heartbeats, names: tuple[str, ...]) -> None:
        self._heartbeats, self._names = heartbeats, names
        self._phases: dict[str, Phase] = {}
        self.state: State = "starting"
        self.info: ServerInfo | None = None

    def enter(self, process: str, phase: Phase) -> None:
        self._phases[process] = phase

    def up(self) -> dict[str, bool]:
        """Process -> its heartbeat is fresh. A process that ended takes the server down, so it needs no check here."""
        return {name: self._heartbeats.age_seconds(slot) < FRESH_SECONDS for slot, name in enumerate(self._names)}

    def livez(self) -> tuple[int, dict[str, Any]]:
        hanging = [name for name, is_up in self.up().items() if not is_up]
        if hanging or self.state == "failed":
            return 503, {"status": "failed", "hanging": hanging}
        return 200, {"status": "ok"}

    def readyz(self) -> tuple[int, dict[str, Any]]:
        return (200 if self.state == "ready" else 503), {"status": self.state}

    def startupz(self) -> tuple[int, dict[str, Any]]:
        """Where each process is; after the start, 200 and the seconds it took."""
        if self.info is not None:
            return 200, {"status": "started", "startupSeconds": self.info.startup_seconds}
        phases = {
            process: {"phase": phase.name, "done": phase.done, "total": phase.total}
            for process, phase in self._phases.items()
        }
        return 503, {"status": "starting", "processes": phases}
