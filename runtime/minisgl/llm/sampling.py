"""How an offline caller says what answers should be like: one checked value, split here into the engine's two halves.

The engine's own `messages.SamplingParams` knows tokens only; stop strings and what is shown belong to the words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from minisgl import messages
from minisgl.messages import DecodeParams

MOST_LOGPROBS = 20  # as the HTTP endpoints: each costs a row of a top-k over the vocabulary


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen and when an answer ends. Wrong values raise ValueError at once.

    The defaults sample from the model's own distribution until it ends its answer. `temperature=0` is greedy.
    """

    max_tokens: int | None = None  # None: as many as the context has room for
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0, -1: off
    min_p: float = 0.0
    seed: int | None = None  # the same seed gives the same answer, whatever else is computed beside it
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop: str | Sequence[str] = ()  # the answer ends before the first of these
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    include_stop: bool = False  # keep the stop string, or the end token, in the text
    skip_special_tokens: bool = True
    logprobs: int | None = None  # n: the chosen token's logarithm, and the n likeliest tokens'

    def __post_init__(self) -> None:
        if self.max_tokens is not None:
            _check("max_tokens", self.max_tokens, 1, math.inf)
        _check("temperature", self.temperature, 0, math.inf)
        _check("top_p", self.top_p, 0, 1)
        if self.top_p == 0:
            raise ValueError("top_p=0 leaves no token to choose from; use temperature=0 for greedy answers")
        _check("top_k", self.top_k, -1, math.inf)
        _check("min_p", self.min_p, 0, 1)
        _check("presence_penalty", self.presence_penalty, -2, 2)
        _check("frequency_penalty", self.frequency_penalty, -2, 2)
        _check("repetition_penalty", self.repetition_penalty, 0, math.inf)
        if self.repetition_penalty == 0:
            raise ValueError("repetition_penalty=0 would divide by zero; 1 is off, 1.1 is usual")
        for token, bias in self.logit_bias.items():
            _check(f"logit_bias[{token}]", bias, -100, 100)
        if self.logprobs is not None:
            _check("logprobs", self.logprobs, 0, MOST_LOGPROBS)
        if any(not isinstance(stop, str) or not stop for stop in self.stops):
            raise ValueError(f"stop={self.stop!r}: must be a text, or texts, none of them empty")

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def for_scheduler(self, max_tokens: int) -> messages.SamplingParams:
        """What the engine must know; `max_tokens` is the caller's, resolved."""
        return messages.SamplingParams(
            max_tokens=max_tokens,
            temperature=float(self.temperature),
            top_p=float(self.top_p),
            top_k=max(0, self.top_k),
            min_p=float(self.min_p),
            seed=self.seed,
            ignore_eos=self.ignore_eos,
            stop_token_ids=tuple(self.stop_token_ids),
            presence_penalty=float(self.presence_penalty),
            frequency_penalty=float(self.frequency_penalty),
            repetition_penalty=float(self.repetition_penalty),
            logit_bias=dict(self.logit_bias),
            logprobs=self.logprobs,
        )

    def for_words(self) -> DecodeParams:
        return DecodeParams(self.stops, self.skip_special_tokens, self.include_stop)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not isinstance(value, int | float) or not low <= value <= high or math.isinf(value):
        bounds = f"at least {low}" if high == math.inf else f"between {low} and {high}"
        raise ValueError(f"{name}={value!r}: must be a number {bounds}")
