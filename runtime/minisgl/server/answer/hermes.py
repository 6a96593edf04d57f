"""Hermes 2 and 3, Qwen 2.5 and Qwen 3: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, anywhere in the text."""

from __future__ import annotations

from minisgl.server.answer.jsoncall import JsonCall, JsonCallParser, Outcome
from minisgl.server.answer.parser import begun_len

OPENING, CLOSING = "<tool_call>", "</tool_call>"


class HermesParser(JsonCallParser):
    """text ──<tool_call>──► object ──whole──► closing mark ──► text; a malformed object: text again, nothing lost."""

    def _step(self, *, is_end: bool) -> bool:
        if self._call is None:
            return self._look(is_end)
        if self._call.outcome is Outcome.WHOLE:
            return self._close(is_end)
        return self._read(self._call, is_end)

    def _look(self, is_end: bool) -> bool:
        """For the next call."""
        said, mark, behind = self._text.partition(OPENING)
        if mark:
            self._call = JsonCall(self._sink)
        else:
            num_kept = 0 if is_end else begun_len(said, OPENING)
            said, behind = said[: len(said) - num_kept], said[len(said) - num_kept :]
        self._sink.content(said)
        self._text = behind
        return bool(mark)

    def _give_back(self, raw: str) -> None:
        self._sink.content(OPENING)
        self._call, self._text = None, raw

    def _close(self, is_end: bool) -> bool:
        """Models forget the closing mark: the next text may be anything."""
        text = self._text.lstrip()
        if not is_end and CLOSING.startswith(text):
            if text == CLOSING:
                self._call, self._text = None, ""
            return False
        self._call, self._text = None, text.removeprefix(CLOSING)
        return True
