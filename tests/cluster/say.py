"""What a person sees: one line per phase with its seconds, a heartbeat while a phase is long, and errors that say
what to do next. Writes to stderr, so that stdout carries only what a command was asked for."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HEARTBEAT_SECONDS = 15  # short enough to show that something lives, long enough not to flood a log


class ClusterError(Exception):
    """What failed, what to do next, and where to read more."""

    def __init__(self, what: str, next_step: str, log: Path | None = None) -> None:
        super().__init__(what)
        self.what, self.next_step, self.log = what, next_step, log

    def __str__(self) -> str:
        lines = [self.what, f"  next: {self.next_step}"]
        if self.log:
            lines.append(f"  log:  {self.log}")
        return "\n".join(lines)


def say(text: str) -> None:
    """One line for the person who waits."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Say how long the block took; say that it still runs every 15 s."""
    started, done = time.monotonic(), threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            say(f"  … {name}: {time.monotonic() - started:.0f} s so far")

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield
    except BaseException:
        say(f"{name}: failed after {time.monotonic() - started:.1f} s")
        raise
    finally:
        done.set()
        heart.join()
    say(f"{name}: {time.monotonic() - started:.1f} s")
