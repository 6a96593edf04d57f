"""The pipes between processes: ZeroMQ `ipc://` in the server's private folder, msgspec messages, no pickle.

The receiver binds, senders connect; order holds within one sender. Names in use: "scheduler", "detokenizer",
"frontend", "tokenizer-{i}", "rank-{r}". Knows nothing of what the messages mean.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import zmq

from minisgl.errors import StartError
from minisgl.termination import Reason

HIGH_WATER = 10_000  # messages; a worker that far ahead of its reader waits, so that memory stays bounded
RECONNECT_MS = 10  # a sender may start before its receiver has bound

logger = logging.getLogger(__name__)
T = TypeVar("T")


def address(ipc: Path, name: str) -> str:
    return f"ipc://{ipc}/{name}"


def bind(receiver: zmq.Socket[bytes], ipc: Path, name: str) -> None:
    """Bind, or StartError with one clear line.

    ZeroMQ removes a file in its way and takes the name over from its owner without a word, so we look first.
    """
    path = ipc / name
    try:
        if _has_listener(path):
            raise OSError(errno.EADDRINUSE, "another process listens on it")
        receiver.bind(address(ipc, name))
    except (OSError, zmq.ZMQError) as error:
        receiver.close(linger=0)
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                Reason.ADDRESS_IN_USE,
                f"the ipc address {path} is in use: another server, or one that is still ending, holds it "
                f"(see: fuser {path}); end that process or remove {ipc}, then start again",
            ) from error
        raise StartError(
            Reason.START_FAILED,
            f"the ipc address {path} cannot be bound: {error}; TMPDIR must name a folder that this process may write",
        ) from error


def _has_listener(path: Path) -> bool:
    """Whether somebody answers on this Unix socket; a file that was left behind refuses."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


class Inbox(Generic[T]):
    """The receiving end. `kind` is a message class or a union of them; anything else is dropped and counted.

    `on_drop` is called for each message that is dropped.
    """

    def __init__(self, ipc: Path, name: str, kind: Any, on_drop: Callable[[], None] = lambda: None) -> None:
        self.name = name
        self.dropped = 0
        self._on_drop = on_drop
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PULL)
        self._socket.setsockopt(zmq.RCVHWM, HIGH_WATER)
        bind(self._socket, ipc, name)

    def get(self, timeout_seconds: float) -> T | None:
        """The next message, or None when none came in time (or the one that came made no sense)."""
        if not self._socket.poll(max(0, round(timeout_seconds * 1000))):
            return None
        return self._decode(self._socket.recv())

    def drain(self) -> list[T]:
        """All messages that are here now."""
        messages: list[T] = []
        while True:
            try:
                data = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return messages
            if (message := self._decode(data)) is not None:
                messages.append(message)

    def listen(self, loop: asyncio.AbstractEventLoop, receive: Callable[[T], None]) -> None:
        """Call `receive` in the event loop for every message.

        ZeroMQ's descriptor signals changes, not contents: each signal is answered by draining to the end. A message
        that `receive` cannot take is dropped too: the ones behind it belong to other requests.
        """

        def drain() -> None:
            for message in self.drain():
                try:
                    receive(message)
                except Exception as error:
                    self._drop(f"kind={type(message).__name__} error={error!r}")

        loop.add_reader(self._socket.fileno(), drain)
        loop.call_soon(drain)

    def close(self) -> None:
        self._socket.close(linger=0)

    def _decode(self, data: bytes) -> T | None:
        try:
            message: T = self._decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # the peer stays
            self._drop(f"bytes={len(data)} error={error}")
            return None
        return message

    def _drop(self, what: str) -> None:
        self.dropped += 1
        logger.warning("message dropped inbox=%s %s total=%d", self.name, what, self.dropped)
        self._on_drop()


class Outbox:
    """The sending end. `put` waits when the reader is HIGH_WATER messages behind.

    `unbounded` never waits: for the front end, whose event loop must not block and whose open requests are counted.
    """

    def __init__(self, ipc: Path, name: str, *, unbounded: bool = False) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, 0 if unbounded else HIGH_WATER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        self._socket.connect(address(ipc, name))
        self._encode = msgspec.msgpack.Encoder().encode

    def put(self, message: msgspec.Struct) -> None:
        self._socket.send(self._encode(message))

    def close(self) -> None:
        self._socket.close(linger=0)
