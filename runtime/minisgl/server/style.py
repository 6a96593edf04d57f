"""How an answer is written: as chat completion or as completion, whole or in chunks. Text in, JSON out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from minisgl.messages import DecodeParams, Finish, PromptToken, SamplingParams, Scored, Text
from minisgl.server.logprobs import chat_logprobs, completion_logprobs, echoed_logprobs
from minisgl.server.sse import event_of

REASONS = {Finish.STOP: "stop", Finish.LENGTH: "length", Finish.ABORT: "abort"}


class Style:
    """Base: what both endpoints share. One object per answer."""

    prefix: str
    whole_object: str
    chunk_object: str
    logprobs: ClassVar[Callable[[Sequence[Scored]], dict[str, Any]]]

    def __init__(self, model: str, request_id: str, *, include_usage: bool, has_logprobs: bool) -> None:
        self._id = self.prefix + request_id
        self._created = int(time.time())
        self._model = model
        self._include_usage, self._has_logprobs = include_usage, has_logprobs
        self._around: dict[int, tuple[bytes, bytes]] = {}  # index -> what stands around the text of a chunk
        self.with_ids = False
        self.prompts: Sequence[NDArray[np.int32]] = ()  # their token ids
        self._ids: dict[int, list[int]] = {}  # index -> tokens that have not been told yet, with `with_ids`
        self._used: dict[str, Any] | None = None  # the counts so far, if every chunk tells them

    def decode(self, params: DecodeParams) -> DecodeParams:
        """What the detokenizer must know to write answers so."""
        return params

    def sampling(self, params: SamplingParams) -> SamplingParams:
        """How tokens are chosen for answers that can be written so."""
        return params

    def take_prompt(self, thinks: bool | None) -> None:
        """What the rendered prompt tells of reasoning, see `Tokenized.thinks`."""

    def opening(self, index: int) -> bytes:
        """What comes before any text of this choice."""
        return b""

    def note(self, index: int, text: Text, used: dict[str, Any] | None) -> None:
        """What goes with the next chunk of this choice, or with the choice, beside its words."""
        self._used = used
        if text.ids:
            self._ids.setdefault(index, []).extend(np.frombuffer(text.ids, "<i4").tolist())

    def echo(self, index: int, text: str, prompt: Sequence[PromptToken], num_top: int) -> None:
        """The next piece of this choice is its prompt, of whose tokens this is known."""

    def piece(self, index: int, text: str, tokens: Sequence[Scored] = ()) -> bytes:
        """One chunk of text, from bytes prepared once: this is the hot path. Nothing new: no chunk."""
        if tokens or self._has_more(index) or (text and self._used is not None):
            choice = self._choice(index, self._delta(text), tokens or None)
            return event_of(self._chunk([choice | {"finish_reason": None}]))
        if not text:
            return b""
        around = self._around.get(index)
        if around is None:
            around = self._around[index] = self._around_text(index)
        return around[0] + msgspec.json.encode(text) + around[1]

    def ending(self, index: int, last: Text) -> bytes:
        """The chunk with the reason."""
        return event_of(self._chunk([self._choice(index, self._nothing()) | reason(last)]))

    def counts(self, used: dict[str, Any]) -> bytes:
        """The chunk with the counts, if it was asked for."""
        return event_of(self._chunk([]) | {"usage": used}) if self._include_usage else b""

    def choice(self, index: int, text: str, tokens: Sequence[Scored], last: Text) -> dict[str, Any]:
        """One choice in one piece."""
        return self._choice(index, self._words(text), tokens if self._has_logprobs else None) | reason(last)

    def whole(self, choices: Sequence[dict[str, Any]], used: dict[str, Any]) -> dict[str, Any]:
        """The answer in one piece."""
        return {
            "id": self._id,
            "object": self.whole_object,
            "created": self._created,
            "model": self._model,
            "choices": choices,
            "usage": used,
        }

    def add_prompts(self, answer: dict[str, Any], about: Sequence[dict[str, Any]], n: int) -> None:
        """What was asked about each prompt, where this endpoint tells it: of a chat there is one."""
        answer |= about[0]

    def _has_more(self, index: int) -> bool:
        """Whether the next chunk tells more than words."""
        return bool(self._ids.get(index))

    def _choice(self, index: int, words: dict[str, Any], tokens: Sequence[Scored] | None = None) -> dict[str, Any]:
        choice = {"index": index, **words, "logprobs": None if tokens is None else type(self).logprobs(tokens)}
        return choice | ({"token_ids": self._ids.pop(index, [])} if self.with_ids else {})

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chunk = {
            "id": self._id,
            "object": self.chunk_object,
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }
        return chunk | ({"usage": self._used} if self._include_usage or self._used is not None else {})

    def _around_text(self, index: int) -> tuple[bytes, bytes]:
        mark = uuid.uuid4().hex
        choice = self._choice(index, self._delta(mark)) | {"finish_reason": None}
        assert self._used is None, "counts change from chunk to chunk"
        head, _, tail = event_of(self._chunk([choice])).partition(msgspec.json.encode(mark))
        return head, tail

    def _delta(self, text: str) -> dict[str, Any]:
        raise NotImplementedError

    def _nothing(self) -> dict[str, Any]:
        raise NotImplementedError

    def _words(self, text: str) -> dict[str, Any]:
        raise NotImplementedError


class ChatStyle(Style):
    """`chat.completion` and its chunks: the role first, then deltas."""

    prefix, whole_object, chunk_object = "chatcmpl-", "chat.completion", "chat.completion.chunk"
    logprobs = chat_logprobs

    def opening(self, index: int) -> bytes:
        delta = {"role": "assistant", "content": ""}
        return event_of(self._chunk([self._choice(index, {"delta": delta}) | {"finish_reason": None}]))

    def _delta(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text}}

    def _nothing(self) -> dict[str, Any]:
        return {"delta": {}}

    def _words(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}


class CompletionStyle(Style):
    """`text_completion`, whole and in chunks."""

    prefix, whole_object, chunk_object = "cmpl-", "text_completion", "text_completion"
    logprobs = completion_logprobs

    def __init__(self, model: str, request_id: str, *, include_usage: bool, has_logprobs: bool) -> None:
        super().__init__(model, request_id, include_usage=include_usage, has_logprobs=has_logprobs)
        self._offsets: dict[int, int] = {}  # index -> characters of its echo
        self._echoed: dict[int, dict[str, Any]] = {}  # index -> logprobs of its echo, until they are told

    def echo(self, index: int, text: str, prompt: Sequence[PromptToken], num_top: int) -> None:
        self._offsets[index] = len(text)
        self._echoed[index] = echoed_logprobs(prompt, num_top)

    def add_prompts(self, answer: dict[str, Any], about: Sequence[dict[str, Any]], n: int) -> None:
        for index, choice in enumerate(answer["choices"]):
            choice |= about[index // n]

    def _has_more(self, index: int) -> bool:
        return index in self._echoed or super()._has_more(index)

    def _choice(self, index: int, words: dict[str, Any], tokens: Sequence[Scored] | None = None) -> dict[str, Any]:
        choice = super()._choice(index, words)
        echoed = self._echoed.pop(index, None)
        if echoed is not None or tokens is not None:
            said = completion_logprobs(tokens or (), self._offsets.get(index, 0))
            choice["logprobs"] = {name: (echoed[name] if echoed else []) + said[name] for name in said}
        return choice

    def _delta(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def _nothing(self) -> dict[str, Any]:
        return {"text": ""}

    def _words(self, text: str) -> dict[str, Any]:
        return {"text": text}


PREFIXES = (ChatStyle.prefix, CompletionStyle.prefix)


def reason(last: Text) -> dict[str, Any]:
    """OpenAI's reason, and which stop string it was if it was one."""
    return {"finish_reason": REASONS.get(last.finish), "stop_reason": last.stopped_by}


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int, reasoning_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": reasoning_tokens},
    }
