"""One answer's text to events: reasoning first, then content and calls. And how a request wants it read."""

from __future__ import annotations

from dataclasses import dataclass, replace

from minisgl.messages import Thinking
from minisgl.server.answer.events import Content, Event, Reasoning
from minisgl.server.answer.grammar import CallGrammar
from minisgl.server.answer.parsers import PARSERS
from minisgl.tokenizer.reasoning import ReasoningSplitter


@dataclass(frozen=True)
class Reading:
    """How the answers of one request are read. `parser` None: calls are text; `reasoning` None: so is reasoning."""

    parser: str | None = None
    reasoning: str | None = None
    names: frozenset[str] = frozenset()  # of the tools that may be called
    parallel: bool = True
    separate: bool = True  # false: reasoning stays in the content, and is only counted
    thinking: Thinking = Thinking.NONE
    calls: CallGrammar | None = None  # what the model is held to

    def after(self, prompt_thinks: bool | None) -> Reading:
        """With what the rendered prompt tells: True, it opens the reasoning; False, it has closed it."""
        return replace(self, thinking=thinking_of(self.reasoning, prompt_thinks))


def thinking_of(reasoning: str | None, prompt_thinks: bool | None) -> Thinking:
    """DeepSeek-R1 always thinks first, whether its template opens that or not; Qwen3 says so itself."""
    if reasoning is None or prompt_thinks is False:
        return Thinking.NONE
    return Thinking.OPEN if prompt_thinks or reasoning == "deepseek-r1" else Thinking.MAY


class AnswerReader:
    """Reads one answer. The events, put together, do not depend on how the text was cut."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._splitter = ReasoningSplitter(reading.thinking, keeps_layout=not reading.separate)
        kind = None if reading.parser is None else PARSERS[reading.parser]
        self._parser = None if kind is None else kind(reading.names, parallel=reading.parallel)

    @property
    def has_called(self) -> bool:
        """There are calls, and each of them is whole."""
        return self._parser is not None and self._parser.has_called

    def feed(self, text: str) -> list[Event]:
        """What is certain now."""
        return self._events(*self._splitter.feed(text))

    def end(self) -> list[Event]:
        """The rest, when no more text comes."""
        events = self._events(*self._splitter.end())
        return events + (self._parser.end() if self._parser is not None else [])

    def _events(self, reasoning: str, answer: str) -> list[Event]:
        events: list[Event] = []
        if reasoning:
            events.append(Reasoning(reasoning) if self._reading.separate else Content(reasoning))
        if self._parser is not None:
            events += self._parser.feed(answer)
        elif answer:
            events.append(Content(answer))
        return events
