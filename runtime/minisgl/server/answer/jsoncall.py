"""One tool call that is written as a JSON object: `{"name": "f", "arguments": {…}}`, `parameters` in Llama's words.

    {"name": "f", "arguments": {"city": "Paris"}}
    ^ kept back                ^ told as it comes ^ passed over
                                                 ^ the call is whole

What is wrong before the arguments begin makes it no call at all: the parser gives the text back as content. After
that the arguments are what the model wrote, up to their last bracket or to a `<`, which no JSON has outside of strings:
as with OpenAI, whoever runs the tool checks them. An object in another order is read whole and told at once.
"""

from __future__ import annotations

import re
from enum import Enum, auto

import msgspec

from minisgl.server.answer.brackets import JSON_CHARS, Brackets
from minisgl.server.answer.events import Sink
from minisgl.server.answer.parser import ToolParser

SPACE = r"[ \t\r\n]*"
HEADER = re.compile(
    SPACE.join([r"", r"\{", '"name"', ":", r'"([a-zA-Z0-9_-]{1,64})"', ",", '"(?:arguments|parameters)"', ":", r"\{"])
)
LONGEST_HEADER = 1024  # characters, so that looking for it costs little, however the text goes on


class Outcome(Enum):
    """What is known of a call."""

    OPEN = auto()
    WHOLE = auto()
    MALFORMED = auto()


class JsonCall:
    """Feed it text that begins with the object; `rest` is what came behind it, `raw` all text if it is malformed."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._object = Brackets(allowed=JSON_CHARS)
        self._arguments: Brackets | None = None
        self._end: Brackets | None = None
        self._num_read = 0  # characters of `raw`
        self.raw = ""  # until the arguments begin
        self.rest = ""
        self.outcome = Outcome.OPEN

    @property
    def has_begun(self) -> bool:
        """The call is told: there is no way back to content."""
        return self._arguments is not None

    def feed(self, text: str) -> Outcome:
        if self._end is not None:
            self._close(text)
        elif self._arguments is not None:
            self._argue(text)
        else:
            self.raw += text
            self._begin()
        return self.outcome

    def _begin(self) -> None:
        if header := HEADER.match(self.raw, 0, LONGEST_HEADER):
            if header[1] not in self._sink.names:
                self.outcome = Outcome.MALFORMED
                return
            self._sink.start(header[1])
            self._arguments = Brackets()
            self._argue(self.raw[header.end() - 1 :])
            return
        if self._num_read == 0:
            start = len(self.raw) - len(self.raw.lstrip(" \t\r\n"))
            if start == len(self.raw):
                return
            if self.raw[start] != "{":
                self.outcome = Outcome.MALFORMED
                return
            self._num_read = start
        self._num_read = self._object.read(self.raw, self._num_read)
        if self._object.is_broken or (self._object.is_closed and not self._tell_whole(self.raw[: self._num_read])):
            self.outcome = Outcome.MALFORMED
        elif self._object.is_closed:
            self.rest = self.raw[self._num_read :]

    def _argue(self, text: str) -> None:
        brackets = self._arguments
        assert brackets is not None
        end = brackets.read(text)
        self._sink.arguments(text[:end])
        if brackets.is_broken:
            self._finish(text[end:])
        elif brackets.is_closed:
            self._end = Brackets(allowed=JSON_CHARS, depth=1)
            self._close(text[end:])

    def _close(self, text: str) -> None:
        """Pass over what stands between the arguments and the object's end; what cannot stand there is not its."""
        assert self._end is not None
        end = self._end.read(text)
        if self._end.is_closed or self._end.is_broken:
            self._finish(text[end:])

    def _finish(self, rest: str) -> None:
        self.rest = rest
        self._sink.end_call()
        self.outcome = Outcome.WHOLE

    def _tell_whole(self, text: str) -> bool:
        try:
            fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            name = msgspec.json.decode(fields["name"], type=str)
            arguments = _object_text(fields.get("arguments", fields.get("parameters", msgspec.Raw(b"{}"))))
        except (KeyError, msgspec.DecodeError, RecursionError):
            return False
        if name not in self._sink.names:
            return False
        self._sink.start(name)
        self._sink.arguments(arguments)
        self._finish("")
        return True


class JsonCallParser(ToolParser):
    """What the parsers of such calls share: a subclass looks for one, and says what becomes of text that is none."""

    _call: JsonCall | None = None  # that is being read

    def _read(self, call: JsonCall, is_end: bool) -> bool:
        text, self._text = self._text, ""
        outcome = call.feed(text)
        if outcome is Outcome.OPEN and (call.has_begun or not is_end):
            return False
        if outcome is Outcome.WHOLE:
            self._text = call.rest
        else:
            self._give_back(call.raw)
        return True

    def _give_back(self, raw: str) -> None:
        """`raw` is no call, or the answer ended in it."""
        raise NotImplementedError


def _object_text(value: msgspec.Raw) -> str:
    """The JSON of an object: as it is, out of a text, or of none. Raises DecodeError for everything else."""
    text = bytes(value).decode()
    if text.startswith('"'):
        text = msgspec.json.decode(text, type=str)
    if text.strip() in ("null", ""):
        return "{}"
    msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    return text.strip()
