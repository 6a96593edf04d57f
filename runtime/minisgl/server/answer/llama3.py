"""Llama 3.1 to 3.3: an answer that begins with `{"name": …, "parameters": {…}}`; more calls follow behind a `;`."""

from __future__ import annotations

from minisgl.server.answer.jsoncall import JsonCall, JsonCallParser, Outcome

TAG = "<|python_tag|>"  # a special token, seen only where special tokens are shown
SEPARATORS = ";,"


class Llama3Parser(JsonCallParser):
    """start ──{──► object ──whole──► between ──; {──► object; everything else is content up to the end."""

    _is_text = False
    _lead = ""  # what stood before the object, if that turns out to be no call

    def _step(self, *, is_end: bool) -> bool:
        if self._is_text:
            self._sink.content(self._text)
            self._text = ""
            return False
        if self._call is None:
            return self._look(is_end)
        if self._call.outcome is Outcome.WHOLE:
            return self._go_on(is_end)
        return self._read(self._call, is_end)

    def _look(self, is_end: bool) -> bool:
        text = self._text.lstrip()
        if not is_end and TAG.startswith(text):
            return False
        self._begin(text.removeprefix(TAG).lstrip(), is_end)
        return self._is_text or self._call is not None

    def _go_on(self, is_end: bool) -> bool:
        """Another call, or whatever the model has to say behind the last one."""
        text = self._text.lstrip()
        if text[:1] and text[:1] in SEPARATORS:
            text = text[1:].lstrip()
        self._begin(text, is_end)
        return self._is_text or self._call is None or self._call.outcome is Outcome.OPEN

    def _begin(self, text: str, is_end: bool) -> None:
        """`text`: what is behind the layout that may stand before an object."""
        if text.startswith("{"):
            self._lead = self._text[: len(self._text) - len(text)]
            self._call, self._text = JsonCall(self._sink), text
        elif text or is_end:
            self._is_text = True

    def _give_back(self, raw: str) -> None:
        self._is_text, self._text = True, self._lead + raw
