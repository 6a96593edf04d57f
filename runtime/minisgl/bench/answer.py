"""A streamed answer as it is measured: when each piece of text came, and how many tokens there were. No I/O."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from minisgl.bench.client import Failed

MAX_LINE_BYTES = 2**20  # of one event; what is longer is no stream of tokens


class Delta(msgspec.Struct):
    """What a chunk of a chat adds."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None

    def has_text(self) -> bool:
        return bool(self.content or self.reasoning_content or self.reasoning or self.tool_calls)


class Choice(msgspec.Struct):
    """Of a chat (`delta`) or a completion (`text`)."""

    text: str | None = None
    delta: Delta | None = None


class Usage(msgspec.Struct):
    """The server's own count of tokens."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Chunk(msgspec.Struct):
    """One event; whatever else is in it is skipped without being built."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None


DECODER = msgspec.json.Decoder(Chunk)


class Answer:
    """One request from the moment it was due. `feed` gets the stream's bytes, cut anywhere."""

    def __init__(self, due_at: float) -> None:
        self.due_at = due_at
        self.times: list[float] = []  # of each event that brought text
        self.usage: Usage | None = None
        self.ended_at = 0.0
        self.failure = ""
        self._is_done = False
        self._rest = b""

    @property
    def num_tokens(self) -> int:
        """By the server's count; a server that gives none is taken to send a token an event."""
        return self.usage.completion_tokens if self.usage is not None else len(self.times)

    def feed(self, data: bytes) -> None:
        """Raises Failed for what is no stream of chunks."""
        now = time.perf_counter()
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise Failed("an endless line in the stream")
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip(), now)

    def _event(self, data: bytes, now: float) -> None:
        if data == b"[DONE]":
            self._is_done = True
            return
        try:
            chunk = DECODER.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Failed("an event that is no chunk") from None
        if chunk.error is not None:
            raise Failed(f"error in the stream: {said(chunk.error)}")
        if chunk.usage is not None:
            self.usage = chunk.usage
        for choice in chunk.choices:
            if choice.text or (choice.delta is not None and choice.delta.has_text()):
                self.times.append(now)
                break

    def end(self, status: int, body: bytes) -> None:
        """The connection is done. Raises Failed unless the stream was whole."""
        if status != 200:
            raise Failed(f"HTTP {status} {refusal(body)}".rstrip())
        if not self._is_done:
            raise Failed("the stream ended without [DONE]")
        if not self.times:
            raise Failed("no text in the answer")


def refusal(body: bytes) -> str:
    """The code in an error's body, or nothing."""
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    if isinstance(content, dict):
        return said(content.get("error", content))
    return ""


def said(error: Any) -> str:
    """What is stable in an OpenAI error object, so that equal ones are counted together."""
    if not isinstance(error, dict):
        return str(error)[:60]
    return str(error.get("code") or error.get("type") or error.get("message") or "")[:60]
