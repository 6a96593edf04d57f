"""Faults that a test asks its server for, in the environment: `MINISGL_FAKE=hold=weights:60,step=0.02,quiet=1`.

creep=SECONDS       the fake scheduler loads for so long, and says how far it is
hold=PHASE:SECONDS  every child stays so long in that start phase        raise=TOKEN  the engine fails on that token
step=SECONDS        a step of the scheduler takes so long                hang=TOKEN   rank 1 stays in that step for ever
fail=REASON         the fake scheduler fails to start                    die          it ends in its first phase
quiet=SECONDS       a phase without progress is told after so long
"""

import os
import time

from minisgl.process import Supervisor

ENVIRONMENT = "MINISGL_FAKE"


def asked() -> dict[str, str]:
    pairs = (item.partition("=") for item in os.environ.get(ENVIRONMENT, "").split(",") if item)
    return {name: value for name, _, value in pairs}


def step_seconds() -> float:
    return float(asked().get("step", "0"))


def hold_phases() -> None:
    """Let this process stay where `hold` says."""
    name, _, seconds = asked().get("hold", "").partition(":")
    report = Supervisor.phase

    def phase(self: Supervisor, at: str, done: int | None = None, total: int | None = None) -> None:
        report(self, at, done, total)
        if at == name:
            time.sleep(float(seconds))

    if name:
        Supervisor.phase = phase  # type: ignore[method-assign]
