"""The decided step on its way from rank 0 to the other ranks: they replay it and never decide.

One pipe per rank, one message per step, numbered; the collectives inside the step keep the ranks in step with each
other. A step that is missing or comes twice would give wrong answers without a sign: the rank ends instead.
"""

from __future__ import annotations

from pathlib import Path

from minisgl.engine.batch import Batch
from minisgl.messages import Message
from minisgl.sockets import Inbox, Outbox


class Decided(Message, frozen=True):
    """Step `number`: the arrays of `Batch.pack`."""

    number: int
    arrays: list[bytes]


class ToRanks:
    """Rank 0's end: sends each batch to ranks 1 and up."""

    def __init__(self, ipc: Path, size: int) -> None:
        self._outboxes = [Outbox(ipc, f"rank-{rank}") for rank in range(1, size)]
        self._number = 0

    def send(self, batch: Batch) -> None:
        self._number += 1
        if self._outboxes:
            message = Decided(self._number, batch.pack())
            for outbox in self._outboxes:
                outbox.put(message)

    def close(self) -> None:
        for outbox in self._outboxes:
            outbox.close()


class FromFirst:
    """Another rank's end."""

    def __init__(self, ipc: Path, rank: int) -> None:
        self._inbox: Inbox[Decided] = Inbox(ipc, f"rank-{rank}", Decided)
        self._number = 0

    def receive(self, timeout_seconds: float) -> Batch | None:
        message = self._inbox.get(timeout_seconds)
        if message is None:
            return None
        self._number += 1
        if message.number != self._number:
            raise RuntimeError(f"step {message.number} came where step {self._number} was expected")
        return Batch.unpack(message.arrays)
