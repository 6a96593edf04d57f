"""The decided step on its way from rank 0 to the other ranks: they replay it and never decide.

One pipe per rank, one message per step; the collectives inside the step keep the ranks in step with each other.
"""

from __future__ import annotations

from pathlib import Path

from minisgl.engine.batch import Batch
from minisgl.messages import Message
from minisgl.sockets import Inbox, Outbox


class Decided(Message, frozen=True):
    """The arrays of `Batch`, in order of definition."""

    arrays: list[bytes]


class ToRanks:
    """Rank 0's end: sends each batch to ranks 1 and up."""

    def __init__(self, ipc: Path, size: int) -> None:
        self._outboxes = [Outbox(ipc, f"rank-{rank}") for rank in range(1, size)]

    def send(self, batch: Batch) -> None:
        if self._outboxes:
            message = Decided(batch.pack())
            for outbox in self._outboxes:
                outbox.put(message)


class FromFirst:
    """Another rank's end."""

    def __init__(self, ipc: Path, rank: int) -> None:
        self._inbox: Inbox[Decided] = Inbox(ipc, f"rank-{rank}", Decided)

    def receive(self, timeout_seconds: float) -> Batch | None:
        message = self._inbox.get(timeout_seconds)
        return None if message is None else Batch.unpack(message.arrays)
