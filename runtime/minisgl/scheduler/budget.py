"""What a step may take of prompts: tokens, of which those far behind a prompt's begin count more, so that steps take
equally long and running requests keep their pace.

A token attends to all before it. With `even` tokens behind it, that takes as long as all else that is done for it:

    cost of a token = 1 + beyond / even        beyond: tokens behind it, but for as many as one step holds at most

    step of 128, even 7,680      behind a prompt's begin     0     2,000     8,000
                                 tokens of it in a step    128       102        63
"""

from __future__ import annotations


class Budget:
    """Of one step after the other."""

    def __init__(self, step_tokens: int, even: int | None) -> None:
        """`step_tokens`: that a step holds at most; a prompt that fits into one costs what it is long. `even` None: all
        tokens cost the same.
        """
        self._step_tokens, self._even = step_tokens, even
        self.left = step_tokens

    def begin(self, singles: int) -> None:
        """A new step, in which so many requests have one token."""
        self.left = self._step_tokens - singles

    def affordable(self, past: int, wanted: int) -> int:
        """Tokens of a prompt with `past` behind them, of `wanted`: at least one, where anything is left."""
        beyond = max(0, past - self._step_tokens)
        if self._even is None or not beyond or self.left <= 0:
            return min(max(0, self.left), wanted)
        return min(max(1, self.left * self._even // (self._even + beyond)), wanted)

    def pay(self, past: int, count: int) -> None:
        """For what was taken."""
        beyond = max(0, past - self._step_tokens)
        self.left -= count + (0 if self._even is None else count * beyond // self._even)
