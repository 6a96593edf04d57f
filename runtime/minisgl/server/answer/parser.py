"""The contract of tool parsers, and what they share."""

from __future__ import annotations

from collections.abc import Callable

from minisgl.server.answer.events import Event, Sink, new_call_id


class ToolParser:
    """One answer's text, in pieces of any size, to content and calls: the events do not depend on the pieces.

    A call of an unknown tool, or one that cannot be read, is content. A subclass writes `_step`.
    """

    def __init__(
        self, names: frozenset[str], *, parallel: bool = True, new_id: Callable[[], str] = new_call_id
    ) -> None:
        self._sink = Sink(names, parallel, new_id)
        self._text = ""  # what is not understood yet

    @property
    def has_called(self) -> bool:
        """There are calls, and each of them is whole."""
        return self._sink.has_called

    def feed(self, text: str) -> list[Event]:
        """What is certain now."""
        self._text += text
        while self._step(is_end=False):
            pass
        return self._sink.take()

    def end(self) -> list[Event]:
        """The rest, when no more text comes."""
        while self._step(is_end=True):
            pass
        self._sink.flush()
        return self._sink.take()

    def _step(self, *, is_end: bool) -> bool:
        """Understand some of `_text`; False when that needs more of it, or nothing is left."""
        raise NotImplementedError


def begun_len(text: str, mark: str) -> int:
    """Length of the longest end of `text` that begins `mark`, and is not all of it."""
    return next((size for size in range(min(len(mark) - 1, len(text)), 0, -1) if mark.startswith(text[-size:])), 0)
