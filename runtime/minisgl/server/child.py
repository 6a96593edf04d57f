"""One child process as the supervisor holds it: start it, read its status lines, order, kill. Decides nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping

import msgspec

from minisgl.process import ChildConfig, Failed, Order, Phase, Ready, Role, Status
from minisgl.threads import settings_of

KILL_SECONDS = 10.0  # a killed process is gone within milliseconds

MODULES: Mapping[Role, str] = {
    "scheduler": "minisgl.scheduler.process",
    "tokenizer": "minisgl.tokenizer.process",
    "detokenizer": "minisgl.tokenizer.process",
    "frontend": "minisgl.server.frontend",
}


class Child:
    """A started child. Its process group is its own: a terminal's signals pass it by, its helpers die with it.

    But a shell stays in ours: only a terminal's foreground group may read from it, and hears its Ctrl-C.
    """

    def __init__(self, config: ChildConfig, module: str) -> None:
        self.status_fd, writing = os.pipe()
        self.config = config = msgspec.structs.replace(config, status_fd=writing)
        self.name = config.name
        self.phase: Phase = Phase("spawn")
        self.ready: Ready | None = None
        self.failed: Failed | None = None
        os.set_blocking(self.status_fd, False)
        self._unread = b""
        self._is_shell = config.role == "frontend" and config.launch_args.shell_mode
        passed = [writing] if config.listen_fd is None else [writing, config.listen_fd]
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            pass_fds=passed,
            process_group=None if self._is_shell else 0,
            env={**os.environ, **settings_of(config.role, config.launch_args.tensor_parallel_size)},
        )
        os.close(writing)
        self._tell(msgspec.json.encode(config))

    def statuses(self) -> list[Status]:
        """What the child has said since the last call; the latest of each kind is also kept here."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.status_fd, 65536):
                self._unread += data
        *lines, self._unread = self._unread.split(b"\n")
        statuses = [msgspec.json.decode(line, type=Status) for line in lines]
        for status in statuses:
            match status:
                case Phase():
                    self.phase = status
                case Ready():
                    self.ready = status
                case Failed():
                    self.failed = status
        return statuses

    def order(self, order: Order) -> None:
        """Send one order; a child that is gone does not hear it."""
        self._tell(msgspec.json.encode(order))

    def _tell(self, line: bytes) -> None:
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line + b"\n")
            self.process.stdin.flush()

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    @property
    def end(self) -> str:
        """How it ended, for a sentence: `was killed by SIGKILL`, `ended with code 70`."""
        code = self.process.returncode
        if code is not None and code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with code {code}"

    def let_go(self) -> None:
        """Close its standard input: it ends by itself."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def dump_stacks(self) -> None:
        """Ask the child for the stacks of its threads; one that was stopped has to go on for it."""
        self.process.send_signal(signal.SIGUSR1)
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            (os.kill if self._is_shell else os.killpg)(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs in the kernel, on a lost disk
            self.process.wait(KILL_SECONDS)
