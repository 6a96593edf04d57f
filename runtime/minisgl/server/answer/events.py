"""The events that a text becomes, and the sink that parsers write them to."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Reasoning:
    """More of what the model thought before it answered."""

    text: str


@dataclass(frozen=True)
class Content:
    """More of the answer's text."""

    text: str


@dataclass(frozen=True)
class CallStarted:
    """The model calls a tool; calls are numbered in their order."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class Arguments:
    """More of a call's arguments; put together they are one JSON object."""

    index: int
    text: str


Event = Reasoning | Content | CallStarted | Arguments


def new_call_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


class Sink:
    """Collects the events of one answer. Space beside a call is layout, not content: it is left out.

    Without `parallel` only the first call is told.
    """

    def __init__(self, names: frozenset[str], parallel: bool, new_id: Callable[[], str]) -> None:
        self.names = names
        self._parallel, self._new_id = parallel, new_id
        self._events: list[Event] = []
        self._space = ""  # at the end of what is known: content, unless a call follows
        self._is_beside = False  # nothing but space since a call
        self._num_started = self._num_ended = 0

    @property
    def has_called(self) -> bool:
        """There are calls, and each of them is whole."""
        return 0 < self._num_started == self._num_ended

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def content(self, text: str) -> None:
        text = self._space + text
        if self._is_beside:
            text = text.lstrip()
        said = text.rstrip()
        self._space = text[len(said) :]
        if said:
            self._is_beside = False
            self._events.append(Content(said))

    def start(self, name: str) -> None:
        self._space, self._is_beside = "", True
        self._num_started += 1
        if self._is_told:
            self._events.append(CallStarted(self._num_started - 1, self._new_id(), name))

    def arguments(self, text: str) -> None:
        if text and self._is_told:
            self._events.append(Arguments(self._num_started - 1, text))

    def end_call(self) -> None:
        self._num_ended += 1

    def flush(self) -> None:
        """The answer ends here."""
        if self._space and not self._is_beside:
            self._events.append(Content(self._space))
        self._space = ""

    @property
    def _is_told(self) -> bool:
        return self._parallel or self._num_started == 1
