"""Reasoning apart from the answer: `<think>…</think>` at its beginning, in pieces of any size.

The detokenizer counts tokens with it, because it sees them one by one; the front end cuts the text with it.
Space beside a mark is layout: it is left out.
"""

from __future__ import annotations

from minisgl.messages import Thinking

OPENING, CLOSING = "<think>", "</think>"


def prompt_thinks(prompt: str) -> bool | None:
    """Does a rendered prompt end within reasoning (True), or just behind it (False)? None: it tells nothing of it."""
    end = prompt[-64:].rstrip()
    return True if end.endswith(OPENING) else False if end.endswith(CLOSING) else None


class ReasoningSplitter:
    """start ──<think>──► thinking ──</think>──► answer. An answer that `Thinking.OPEN` begins within starts thinking.

    With `keeps_layout` the reasoning has its marks and space, so that both parts, one after the other, are the text.
    """

    def __init__(self, thinking: Thinking, *, keeps_layout: bool = False) -> None:
        self._keeps_layout = keeps_layout
        self._text = ""  # what is not understood yet
        self._is_start = True
        self._is_beside = True  # nothing but space since a mark
        self._is_open = thinking is Thinking.OPEN
        self.is_past = thinking is Thinking.NONE  # all that comes is the answer
        self.has_thought = self._is_open

    def feed(self, text: str) -> tuple[str, str]:
        """What is certain now: reasoning, and text of the answer."""
        if self.is_past and not self._text:
            return "", self._answer(text)
        self._text += text
        if self._is_start and not self.is_past and not self._begin(is_end=False):
            return "", ""
        reasoning = "" if self.is_past else self._think(is_end=False)
        return reasoning, self._rest()

    def end(self) -> tuple[str, str]:
        """The rest, when no more text comes."""
        if self._is_start and not self.is_past:
            self._begin(is_end=True)
        return "" if self.is_past else self._think(is_end=True), self._rest()

    def _begin(self, is_end: bool) -> bool:
        """Does the answer open its reasoning? Models do that also where the prompt has done it."""
        text = self._text.lstrip()
        if not is_end and OPENING.startswith(text):
            return False
        self._is_start = False
        if text.startswith(OPENING):
            if not self._keeps_layout:
                self._text = text.removeprefix(OPENING)
            self._is_open = self.has_thought = True
        elif not self._is_open:
            self.is_past, self._is_beside = True, False
        return True

    def _think(self, is_end: bool) -> str:
        if self._is_beside and not self._keeps_layout:
            self._text = self._text.lstrip()
            self._is_beside = not self._text
        before, mark, behind = self._text.partition(CLOSING)
        if mark:
            self.is_past = self._is_beside = True
            self._text = behind
            return before + mark if self._keeps_layout else before.rstrip()
        end = len(before)
        if not is_end:
            sizes = range(min(len(CLOSING) - 1, end), 0, -1)
            end -= next((size for size in sizes if before.endswith(CLOSING[:size])), 0)
            end = end if self._keeps_layout else len(before[:end].rstrip())
        self._text = before[end:]
        return before[:end]

    def _rest(self) -> str:
        if not self.is_past:
            return ""
        text, self._text = self._text, ""
        return self._answer(text)

    def _answer(self, text: str) -> str:
        if self.has_thought and self._is_beside and not self._keeps_layout:
            text = text.lstrip()
            self._is_beside = not text
        return text


class ReasoningCounter:
    """How many of an answer's tokens were reasoning: all up to the one that completes `</think>`, that one included."""

    def __init__(self, thinking: Thinking) -> None:
        self._splitter = ReasoningSplitter(thinking)
        self._num_tokens = 0

    def add(self, piece: str) -> None:
        """Count a token, with the text that became certain with it."""
        if not self._splitter.is_past:
            self._num_tokens += 1
            self._splitter.feed(piece)

    @property
    def num_tokens(self) -> int:
        return self._num_tokens if self._splitter.has_thought else 0
