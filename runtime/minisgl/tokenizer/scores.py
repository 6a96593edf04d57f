"""Logprobs beside a growing text: a token is told with the first of its characters that is shown.

    tokens       [ The][ ca][\\xc3][\\xa9][ sto][p!]      the two halves of é begin at the same character
    text shown   [ The ca    é     ]                    the stop string " stop" is cut off, with its tokens

So what is told goes with the text, however the text was held back. What is no text (an end token, a hidden special
token) is not told: the spellings of a byte-level model's tokens, one after another, are the text that they made.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minisgl.messages import Logprobs, PromptLogprobs, PromptToken, Scored
from minisgl.tokenizer.decode import Decoder


class Scores:
    """The tokens of one answer whose text is not shown yet."""

    def __init__(self, decoder: Decoder, skip_special_tokens: bool, shows_marks: bool = False) -> None:
        self._spell, self._hidden = decoder.spell, decoder.hidden(skip_special_tokens, shows_marks)
        self._waiting: list[Scored] = []
        self._made = self._shown = 0  # characters: that the tokens have made, that were shown

    def add(self, token: int, logprobs: Logprobs, piece: str) -> None:
        """Take in a token and the text that became certain with it."""
        if logprobs.token != token:
            raise ValueError(f"the logprobs are those of token {logprobs.token}")
        if token not in self._hidden:
            top = tuple((self._spell(other), logprob) for other, logprob in logprobs.top)
            self._waiting.append(Scored(self._spell(token), logprobs.logprob, top, self._made))
        self._made += len(piece)

    def show(self, num_chars: int, *, is_end: bool) -> tuple[Scored, ...]:
        """What goes with the next `num_chars` of shown text; `is_end`: nothing was cut off, all is told."""
        self._shown += num_chars
        count = len(self._waiting)
        if not is_end:
            count = next((i for i, token in enumerate(self._waiting) if token.start >= self._shown), count)
        told, self._waiting = tuple(self._waiting[:count]), self._waiting[count:]
        return told


def tell_prompt(decoder: Decoder, prompt: PromptLogprobs, skip_special_tokens: bool) -> tuple[PromptToken, ...]:
    """Every token of a prompt, also those that are no text: where each begins, how likely it was."""
    ids = np.frombuffer(prompt.ids, "<i4")
    most = len(ids) - 1
    width = len(prompt.top) // 4 // most if most else 0
    top_tokens = np.frombuffer(prompt.top_tokens, "<i4").reshape(most, width).tolist()
    top = np.frombuffer(prompt.top, "<f4").reshape(most, width).tolist()
    logprobs, ranks = np.frombuffer(prompt.logprobs, "<f4").tolist(), np.frombuffer(prompt.ranks, "<i4").tolist()
    stream, start, told = decoder.open(skip_special_tokens), 0, []
    for at, token in enumerate(ids.tolist()):
        known: tuple[Any, ...] = ()
        if at:
            spelled = [
                (other, decoder.spell(other), p) for other, p in zip(top_tokens[at - 1], top[at - 1], strict=True)
            ]
            known = logprobs[at - 1], ranks[at - 1], tuple(spelled)
        told.append(PromptToken(token, decoder.spell(token), start, *known))
        start += len(stream.feed(token))
    return tuple(told)
