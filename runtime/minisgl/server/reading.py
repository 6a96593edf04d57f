"""Chat answers that are read: reasoning and tool calls beside the content, whole or in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from minisgl.messages import DecodeParams, Finish, SamplingParams, Scored, Text
from minisgl.server.answer.events import Arguments, CallStarted, Content, Event, Reasoning
from minisgl.server.answer.grammar import behind_reasoning
from minisgl.server.answer.reader import AnswerReader, Reading
from minisgl.server.sse import event_of
from minisgl.server.style import ChatStyle, reason


class ReadingStyle(ChatStyle):
    """A chat style with one reader per choice. Logprobs are those of the model's whole text, marks included."""

    def __init__(
        self, model: str, request_id: str, reading: Reading, *, include_usage: bool, has_logprobs: bool
    ) -> None:
        super().__init__(model, request_id, include_usage=include_usage, has_logprobs=has_logprobs)
        self._reading = reading
        self._readers: dict[int, AnswerReader] = {}

    def decode(self, params: DecodeParams) -> DecodeParams:
        return msgspec.structs.replace(params, thinking=self._reading.thinking, shows_marks=True)

    def sampling(self, params: SamplingParams) -> SamplingParams:
        calls, thinking = self._reading.calls, self._reading.thinking
        asked = params.grammar  # of the answer's text
        if calls is not None and (calls.is_forced or not asked):
            return msgspec.structs.replace(params, grammar=calls.lark(thinking))
        return msgspec.structs.replace(params, grammar=behind_reasoning(asked, thinking)) if asked else params

    def take_prompt(self, thinks: bool | None) -> None:
        self._reading = self._reading.after(thinks)

    def piece(self, index: int, text: str, tokens: Sequence[Scored] = ()) -> bytes:
        return self._chunks(index, self._reader(index).feed(text), tokens)

    def ending(self, index: int, last: Text) -> bytes:
        reader = self._reader(index)
        rest = self._chunks(index, reader.end(), ())
        return rest + event_of(self._chunk([self._choice(index, self._nothing()) | _reason(reader, last)]))

    def choice(self, index: int, text: str, tokens: Sequence[Scored], last: Text) -> dict[str, Any]:
        reader = self._reader(index)
        message = self._message(reader.feed(text) + reader.end())
        words = {"message": message}
        return self._choice(index, words, tokens if self._has_logprobs else None) | _reason(reader, last)

    def _reader(self, index: int) -> AnswerReader:
        if index not in self._readers:
            self._readers[index] = AnswerReader(self._reading)
        return self._readers[index]

    def _chunks(self, index: int, events: Sequence[Event], tokens: Sequence[Scored]) -> bytes:
        """One chunk per event. What else is to be told goes with the first, or alone while the text is kept back."""
        chunks = []
        if tokens or self._has_more(index):
            first = _delta(events[0]) if events else {}
            choice = self._choice(index, {"delta": first}, tokens or None) | {"finish_reason": None}
            chunks.append(event_of(self._chunk([choice])))
            events = events[1:]
        for event in events:
            if isinstance(event, Content):
                chunks.append(super().piece(index, event.text))
            else:
                choice = self._choice(index, {"delta": _delta(event)}) | {"finish_reason": None}
                chunks.append(event_of(self._chunk([choice])))
        return b"".join(chunks)

    def _message(self, events: Sequence[Event]) -> dict[str, Any]:
        content, reasoning = "", ""
        calls: list[dict[str, Any]] = []
        for event in events:
            match event:
                case Content(text):
                    content += text
                case Reasoning(text):
                    reasoning += text
                case CallStarted():
                    calls.append(_call(event))
                case Arguments(index, text):
                    calls[index]["function"]["arguments"] += text
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if self._reading.reasoning is not None:
            message |= {"reasoning_content": reasoning or None, "reasoning": reasoning or None}
        if calls:
            message["tool_calls"] = calls
        if not content and (calls or reasoning):
            message["content"] = None
        return message


def _reason(reader: AnswerReader, last: Text) -> dict[str, Any]:
    called = {"finish_reason": "tool_calls"} if reader.has_called and last.finish is Finish.STOP else {}
    return reason(last) | called


def _delta(event: Event) -> dict[str, Any]:
    match event:
        case Content(text):
            return {"content": text}
        case Reasoning(text):
            return {"reasoning_content": text, "reasoning": text}
        case CallStarted(index):
            return {"tool_calls": [{"index": index, **_call(event)}]}
        case Arguments(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}


def _call(event: CallStarted) -> dict[str, Any]:
    return {"id": event.id, "type": "function", "function": {"name": event.name, "arguments": ""}}
