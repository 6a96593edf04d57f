"""A child's line to its supervisor: configuration and orders in, phases and readiness out, a heartbeat beside them.

Knows nothing of what the child does, and no torch. The three lines are drawn in runtime/README.md:
standard input (one JSON line of `ChildConfig`, later orders; its end means that the supervisor is gone), a status
pipe (one JSON line per `Status`), and a shared file with one monotonic time, and a count of messages that were
dropped, per child.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import mmap
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn

import msgspec

from minisgl import log
from minisgl.args import LaunchArgs
from minisgl.errors import EXIT_CHILD_DIED, EXIT_START_FAILED, MiniSGLError
from minisgl.info import EngineFacts
from minisgl.termination import Memory, Reason

HEARTBEATS = "heartbeats"  # the shared file's name in the ipc folder
SLOT = struct.Struct("<d")  # aligned 8 bytes: written and read whole on every CPU we run on
COUNT = struct.Struct("<q")  # the same
SLOT_BYTES = SLOT.size + COUNT.size
STACKS = "stacks-{}"  # files in the ipc folder, one per process
READY = "ready"  # the phase of a child whose start is over, in /startupz
PR_SET_PDEATHSIG = 1

logger = logging.getLogger(__name__)

Role = Literal["scheduler", "tokenizer", "detokenizer", "frontend"]


class ChildConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a child is told at its start. `index` is the TP rank or the tokenizer's number."""

    role: Role
    index: int
    ipc: str  # the private folder of sockets, mode 0700; also the place for a rank's rendezvous file
    args: dict[str, Any]  # LaunchArgs by field name
    status_fd: int
    heartbeat_slot: int
    heartbeat_names: tuple[str, ...]  # process names, slot by slot
    listen_fd: int | None = None  # front end: the bound HTTP socket
    started_at: float = 0.0  # monotonic seconds at which the whole server was started

    @property
    def name(self) -> str:
        """The process in logs, metrics and errors: `scheduler-0`, `tokenizer-1`, `detokenizer`, `frontend`."""
        return f"{self.role}-{self.index}" if self.role in ("scheduler", "tokenizer") else self.role

    @property
    def launch_args(self) -> LaunchArgs:
        return LaunchArgs.model_validate(self.args)


class Phase(msgspec.Struct, frozen=True, tag=True):
    """A start phase begins, or goes on: `done` of `total` (bytes for "weights")."""

    name: str
    done: int | None = None
    total: int | None = None


class Dialect(msgspec.Struct, frozen=True):
    """How a model answers, by its chat template. None: without such a thing, or in a way that we do not read."""

    tools: Literal["hermes", "llama3", "pythonic"] | None = None
    reasoning: Literal["qwen3", "deepseek-r1"] | None = None


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The child can work. Scheduler rank 0 adds what the engine decided, a tokenizer what it knows of the model."""

    facts: dict[str, Any] | None = None
    vocabulary_size: int | None = None
    dialect: Dialect | None = None


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The child ends now, for this reason."""

    reason: Reason
    message: str
    memory: Memory | None = None


Status = Phase | Ready | Failed


# ---- supervisor -> front end, one JSON line each on its standard input


class Progress(msgspec.Struct, frozen=True, tag=True):
    """Where one child of a start is, for /startupz. `since` is in monotonic seconds, `rate` in units per second."""

    process: str
    phase: str
    done: int | None = None
    total: int | None = None
    since: float = 0.0
    rate: float | None = None
    eta_seconds: float | None = None


class Open(msgspec.Struct, frozen=True, tag=True):
    """All children can work: warm up, then open the door."""

    facts: dict[str, Any]
    vocabulary_size: int
    startup_seconds: dict[str, float]
    dialect: Dialect = Dialect()


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Finish what is open within the drain times, then end."""


class Break(msgspec.Struct, frozen=True, tag=True):
    """End every open request with this error now, then end."""

    message: str


Order = Progress | Open | Drain | Break


class Heartbeats:
    """The shared file: per child the monotonic seconds of its last beat (the clock is the machine's, so all can
    compare) and how many messages or rows it has dropped. Each slot has one writer.
    """

    def __init__(self, ipc: Path, slots: int) -> None:
        descriptor = os.open(ipc / HEARTBEATS, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, slots * SLOT_BYTES)
            self._map = mmap.mmap(descriptor, slots * SLOT_BYTES)
        finally:
            os.close(descriptor)

    def beat(self, slot: int, at: float | None = None) -> None:
        """Write a beat: now, or the earlier moment `at` up to which the child is known to have lived."""
        SLOT.pack_into(self._map, slot * SLOT_BYTES, time.monotonic() if at is None else at)

    def age_seconds(self, slot: int) -> float:
        """Seconds since the last beat; a child that has not begun to beat counts from the machine's boot."""
        beat: float = SLOT.unpack_from(self._map, slot * SLOT_BYTES)[0]
        return time.monotonic() - beat

    def count_dropped(self, slot: int) -> None:
        COUNT.pack_into(self._map, slot * SLOT_BYTES + SLOT.size, self.dropped(slot) + 1)

    def dropped(self, slot: int) -> int:
        count: int = COUNT.unpack_from(self._map, slot * SLOT_BYTES + SLOT.size)[0]
        return count


class Supervisor:
    """The supervisor, as its child sees it. Its methods may be called from any thread."""

    def __init__(self, config: ChildConfig) -> None:
        self.config = config
        self.heartbeats = Heartbeats(Path(config.ipc), len(config.heartbeat_names))
        self._writing = threading.Lock()
        self._orders: list[Order] = []
        self._on_order: Callable[[Order], None] | None = None
        self._hearing = threading.Lock()
        self.beat()

    def phase(self, name: str, done: int | None = None, total: int | None = None) -> None:
        """Report a start phase, and its progress as often as it is cheap; counts as a heartbeat."""
        self.beat()
        self._say(Phase(name, done, total))

    def ready(
        self, facts: EngineFacts | None = None, vocabulary_size: int | None = None, dialect: Dialect | None = None
    ) -> None:
        """Report that this child can work. From now on it must beat at least every few seconds, also when idle."""
        self.beat()
        self._say(Ready(facts.model_dump(mode="json") if facts else None, vocabulary_size, dialect))

    def fail(self, reason: Reason, message: str, memory: Memory | None = None) -> NoReturn:
        """End this process with one clear line that the supervisor passes on."""
        self._say(Failed(reason, message, memory))
        leave(EXIT_START_FAILED)

    def beat(self, at: float | None = None) -> None:
        """Say that the main loop goes round; `at` is an earlier moment, where a second loop has not come so far.

        Never call it from a helper thread: it would hide a hang.
        """
        self.heartbeats.beat(self.config.heartbeat_slot, at)

    def count_dropped(self) -> None:
        """Say that a message made no sense and was dropped; the front end tells it as a metric."""
        with self._writing:
            self.heartbeats.count_dropped(self.config.heartbeat_slot)

    def listen(self, on_order: Callable[[Order], None]) -> None:
        """Hear the supervisor's orders, also those that came before this call; runs in the watching thread."""
        with self._hearing:
            self._on_order = on_order
            for order in self._orders:
                on_order(order)
            self._orders.clear()

    def hear(self, order: Order) -> None:
        with self._hearing:
            if self._on_order is None:
                self._orders.append(order)
            else:
                self._on_order(order)

    def _say(self, status: Status) -> None:
        line = msgspec.json.encode(status) + b"\n"
        with self._writing:
            while line:
                line = line[os.write(self.config.status_fd, line) :]


def leave(code: int) -> NoReturn:
    """End now: no handler, no waiting for a thread that hangs in a library."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


def attach() -> Supervisor:
    """Read the configuration and tie this process's life to the supervisor's."""
    if sys.platform == "linux":  # also when the supervisor is killed while we hang in C code
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    lines = sys.stdin.buffer
    supervisor = Supervisor(msgspec.json.decode(lines.readline(), type=ChildConfig))

    def watch() -> None:
        while line := lines.readline():
            supervisor.hear(msgspec.json.decode(line, type=Order))
        os._exit(0)  # told to stop, or left alone: nobody would read another word

    threading.Thread(target=watch, name="supervisor", daemon=True).start()
    return supervisor


def run_child(main: Callable[[Supervisor], None]) -> NoReturn:
    """The whole life of a child process: attach, run `main`, translate its end into an exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):  # from a terminal or a container; the supervisor decides
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    supervisor = attach()
    log.setup(supervisor.config.name, quiet=supervisor.config.launch_args.shell_mode)
    # The supervisor asks for the stacks when a process hangs. Into files, because all write to one stderr at once.
    stacks = (Path(supervisor.config.ipc) / STACKS.format(supervisor.config.name)).open("w")
    faulthandler.register(signal.SIGUSR1, file=stacks)
    try:
        main(supervisor)
    except MiniSGLError as error:
        supervisor.fail(getattr(error, "reason", Reason.START_FAILED), str(error), getattr(error, "memory", None))
    except PermissionError as error:  # of any file of the model, whoever reads it
        where = error.filename or "a file"
        supervisor.fail(Reason.MODEL_LOAD_FAILED, f"{where} cannot be read: {error.strerror}; check its owner and mode")
    except Exception:
        logger.exception("unexpected error")
        leave(EXIT_CHILD_DIED)
    leave(0)
