"""What a step may take of prompts: tokens, of which those far behind a prompt's begin count more, so that no step takes
much longer than others and running requests keep their pace.

A token attends to all before it. With `even` tokens behind it, that takes as long as all else that is done for it:

    cost of a token = 1 + beyond / even        beyond: tokens behind it, but for as many as one step holds at most

A step may take a quarter longer than a full one at a prompt's begin, where weights are read in any case:

    step of 128, even 7,680      behind a prompt's begin     0     8,000     40,000
                                 tokens of it in a step    128        97         31
"""

from __future__ import annotations

# Reading weights takes as long as the products of so many tokens, at 4 TB/s, 600 TFLOP/s and 16 bits.
WEIGHTS_TOKENS = 150


class Budget:
    """Of one step after the other."""

    def __init__(self, step_tokens: int, even: int | None) -> None:
        """`step_tokens`: that a step holds at most; a prompt that fits into one costs what it is long. `even` None: all
        tokens cost the same.
        """
        self._step_tokens, self._even = step_tokens, even
        self._extra = (step_tokens + WEIGHTS_TOKENS) // 4
        self.left, self._spare = step_tokens, self._extra

    def begin(self, singles: int) -> None:
        """A new step, in which so many requests have one token."""
        self.left, self._spare = self._step_tokens - singles, self._extra

    def affordable(self, past: int, wanted: int) -> int:
        """Tokens of a prompt with `past` behind them, of `wanted`: at least one, where anything is left."""
        most = min(max(0, self.left), wanted)
        beyond = max(0, past - self._step_tokens)
        if self._even is None or not beyond:
            return most
        return min(most, max(1, (self.left + self._spare) * self._even // (self._even + beyond)))

    def pay(self, past: int, count: int) -> None:
        """For what was taken."""
        beyond = max(0, past - self._step_tokens)
        more = 0 if self._even is None else count * beyond // self._even
        spared = min(more, self._spare)
        self._spare -= spared
        self.left -= count + more - spared
