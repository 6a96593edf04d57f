"""What a step may take of prompts: tokens, by turn, under two rules.

A long prompt does not keep much shorter ones behind it waiting until it is read. If the first in turn does not end in a
step, it takes half of it, and then those that need at most a quarter of what it needs get the rest. What they leave is
offered again, to all. Prompts of about one length are read one after the other: sharing would make the first later, and
no other sooner.

    by turn    8,000 tokens, 3,000, 300, 50      step of 128    [ 64 of the 8,000 | 64 of the 300 ]
    by turn    8,000 tokens, 3,000, 20           step of 128    [ 64 of the 8,000 | 20 | 44 more of the 8,000 ]

Tokens far behind a prompt's begin count more, so that no step takes much longer than others and running requests keep
their pace. A token attends to all before it. With `even` tokens behind it, that takes as long as all else that is done
for it:

    cost of a token = 1 + beyond / even        beyond: tokens behind it, but for as many as one step holds at most

A step may take a quarter longer than a full one at a prompt's begin, where weights are read in any case:

    step of 128, even 7,680      behind a prompt's begin     0     8,000     40,000
                                 tokens of it in a step    128        97         32
"""

from __future__ import annotations

from typing import NamedTuple

# Reading weights takes as long as the products of so many tokens, at 4 TB/s, 600 TFLOP/s and 16 bits.
WEIGHTS_TOKENS = 150
MUCH_SHORTER = 4  # times


class Ask(NamedTuple):
    """What a prompt wants of a step."""

    past: int  # tokens of it that are computed, or will be in this step
    wanted: int  # those behind them
    priority: int


class Budget:
    """Of one step after the other."""

    def __init__(self, step_tokens: int, even: int | None) -> None:
        """`step_tokens`: that a step holds at most; a prompt that fits into one costs what it is long. `even` None: all
        tokens cost the same.
        """
        self._step_tokens, self._even = step_tokens, even
        self._extra = (step_tokens + WEIGHTS_TOKENS) // 4
        self.begin(0)

    def begin(self, singles: int) -> None:
        """A new step, in which so many requests have one token."""
        self.left, self._spare = self._step_tokens - singles, self._extra
        self._shares = True
        self._first: Ask | None = None  # of the prompt that has its half

    def affordable(self, ask: Ask) -> int:
        """Tokens of a prompt; where any are left at least one, unless they are kept for shorter ones."""
        most = min(max(0, self.left), ask.wanted)
        if self._first is not None and self._shares and not self._may_pass(ask, self._first):
            return 0
        if self._is_first(ask):
            most = -(-most // 2)
        beyond = max(0, ask.past - self._step_tokens)
        if self._even is None or not beyond:
            return most
        return min(most, max(1, (self.left + self._spare) * self._even // (self._even + beyond)))

    def pay(self, ask: Ask, count: int) -> None:
        """For what was taken."""
        if self._is_first(ask):
            self._first = ask
        beyond = max(0, ask.past - self._step_tokens)
        more = 0 if self._even is None else count * beyond // self._even
        spared = min(more, self._spare)
        self._spare -= spared
        self.left -= count + more - spared

    def offer_rest(self) -> bool:
        """Once everybody has asked: whether to let all ask again, for what a long prompt left and nobody took."""
        again = self._shares and self._first is not None and self.left > 0
        self._shares = False
        return again

    def _is_first(self, ask: Ask) -> bool:
        """Whether it leaves half to others; not of less than half a step, which prompts that end in it have left."""
        return self._shares and self._first is None and self.left < ask.wanted and 2 * self.left >= self._step_tokens

    @staticmethod
    def _may_pass(ask: Ask, first: Ask) -> bool:
        return ask.wanted * MUCH_SHORTER <= first.wanted and ask.priority >= first.priority
