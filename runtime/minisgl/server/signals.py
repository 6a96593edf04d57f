"""What wakes the supervisor: status lines, signals, ends of children. As PID 1 it also reaps what it did not start."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
from collections.abc import Iterable
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Wakeups:
    """Waits for file descriptors and signals at once. Use as a context manager, in the main thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._reading, selectors.EVENT_READ)
        self._before: dict[int, Any] = {}
        self.num_stop_signals = 0

    def __enter__(self) -> Wakeups:
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            self._before[number] = signal.signal(number, self._stop)
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        self._selector.close()
        os.close(self._reading)
        os.close(self._writing)

    def _stop(self, number: int, frame: object) -> None:
        self.num_stop_signals += 1

    def watch(self, descriptor: int) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ)

    def unwatch(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)

    def wait(self, seconds: float) -> None:
        """Return when anything happened, or after `seconds`."""
        self._selector.select(seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._reading, 4096)


def reap_orphans(children: Iterable[int]) -> None:
    """As PID 1: collect ended processes that were handed to us, and leave our own `children` to their owners."""
    own = set(children)
    with contextlib.suppress(ChildProcessError):
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid in own:
                return  # its owner collects it, then we come again
            os.waitpid(ended.si_pid, os.WNOHANG)
