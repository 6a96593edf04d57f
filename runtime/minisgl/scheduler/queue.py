"""Requests that wait for a row, in the order of their turns. Knows no pages; takes no decisions."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator

from minisgl.scheduler.rows import Request


class Queue:
    """Sorted by turn: the higher priority first, then the earlier arrival. A preempted request finds its old place."""

    def __init__(self) -> None:
        self._requests: list[Request] = []

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)

    def put(self, request: Request) -> None:
        insort(self._requests, request, key=lambda waiting: waiting.turn)

    def remove(self, request: Request) -> None:
        self._requests.remove(request)

    def first(self, count: int) -> list[Request]:
        """Up to `count` requests whose turn comes next; they stay."""
        return self._requests[:count]

    def clear(self) -> None:
        self._requests.clear()
