"""One decided step, as arrays: what the scheduler hands to the engine, and what rank 0 sends to the other ranks.

request        0    1    2         those with one token first: they are attended as one padded batch
rows           7    2    5         a number that stays the request's while it runs; names its place in `Engine.last`
counts         1    1    3         tokens to compute now
starts         9    4    16        tokens whose keys and values are in the cache already
tokens         a   -1    c d e     flat, request by request; `c` stands at position 16. -1: what the step before sampled
                                   for this row, which only the device knows yet
pages row      [..] [..] [..]      the request's pages, from its first token on; unused entries mean nothing
sampled        0    1    -         requests whose last token here is their last known one: they get a next token
scored         -    -    2 3       indices into `tokens`: prompt positions whose next token's probability was asked for

The answer to a batch is `Sampled`: one token per entry of `sampled`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from minisgl.messages import Logprobs

NOT_KNOWN = -1  # a token that was sampled and has not come back yet; kernels.known takes any below 0 for one


@dataclass(frozen=True)
class Extras:
    """What few requests ask of the sampler. Indices `…_at` count in `Batch.sampled`; no entry: nothing asked.

    `history` is flat: for each penalised request its prompt and answer so far, the last token perhaps NOT_KNOWN.
    """

    penalised_at: NDArray[np.int64]
    presence: NDArray[np.float32]
    frequency: NDArray[np.float32]
    repetition: NDArray[np.float32]
    prompt_len: NDArray[np.int64]
    history_len: NDArray[np.int64]
    history: NDArray[np.int64]
    bias_at: NDArray[np.int64]  # one entry per biased token
    bias_token: NDArray[np.int64]
    bias: NDArray[np.float32]
    logprobs_at: NDArray[np.int64]
    num_top: NDArray[np.int64]  # likeliest tokens to report beside the chosen one
    held_at: NDArray[np.int64]
    masks: NDArray[np.int32]  # [held, words]: a bit per token, the lowest first; one that is not set is not chosen


@dataclass(frozen=True)
class Sampling:
    """How to choose, one entry per request in `Batch.sampled`. Only rank 0 samples and has it."""

    temperature: NDArray[np.float32]  # 0: greedy
    top_k: NDArray[np.int32]  # 0: off
    top_p: NDArray[np.float32]
    min_p: NDArray[np.float32]
    seeds: NDArray[np.uint64]
    positions: NDArray[np.int32]  # of the new token
    extras: Extras | None = None

    @classmethod
    def greedy(cls, count: int) -> Self:
        """The likeliest token, `count` times."""
        zeros, ones = np.zeros(count, np.float32), np.ones(count, np.float32)
        integers = np.zeros(count, np.int32)
        return cls(zeros, integers, ones, zeros, np.zeros(count, np.uint64), integers)


@dataclass(frozen=True)
class Scoring:
    """What is asked about the positions `Batch.scored`. Only rank 0 has it."""

    following: NDArray[np.int64]  # the prompt's next token at each of them
    num_top: int  # likeliest tokens to report beside it: the most that any request wants


def _no_indices() -> NDArray[np.int32]:
    return np.empty(0, np.int32)


@dataclass(frozen=True)
class Batch:
    """The arrays of the picture."""

    rows: NDArray[np.int32]
    tokens: NDArray[np.int32]
    starts: NDArray[np.int32]
    counts: NDArray[np.int32]
    pages: NDArray[np.int32]  # [requests, widest]
    sampled: NDArray[np.int32]
    scrub: NDArray[np.int32]  # pages that a failed request left: every rank clears NaN from them before it computes
    sampling: Sampling | None = None
    scored: NDArray[np.int32] = field(default_factory=_no_indices)
    scoring: Scoring | None = None

    @property
    def num_single(self) -> int:
        """Requests with one token; they come first."""
        return int(np.count_nonzero(self.counts == 1))

    def pack(self) -> list[bytes]:
        """What the other ranks need, as bytes in order of definition."""
        return [getattr(self, name).tobytes() for name in SHARED]

    @classmethod
    def unpack(cls, packed: list[bytes]) -> Self:
        arrays: dict[str, Any] = {
            name: np.frombuffer(data, np.int32) for name, data in zip(SHARED, packed, strict=True)
        }
        arrays["pages"] = arrays["pages"].reshape(len(arrays["starts"]), -1)
        return cls(**arrays, sampling=None)


SHARED = ("rows", "tokens", "starts", "counts", "pages", "sampled", "scrub", "scored")


class Scores(NamedTuple):
    """One entry per position in `Batch.scored`: logprob and rank (1: the likeliest) of the prompt's next token, and the
    likeliest tokens there [scored, num_top], best first."""

    logprobs: NDArray[np.float32]
    ranks: NDArray[np.int32]
    top_tokens: NDArray[np.int32]
    top: NDArray[np.float32]


class Sampled(NamedTuple):
    """One entry per request in `Batch.sampled`; where `failed`, the logits were NaN or infinite and nothing counts."""

    tokens: NDArray[np.int32]
    failed: NDArray[np.bool_]
    logprobs: Mapping[int, Logprobs] = MappingProxyType({})  # by index into `sampled`, for those that asked
    scores: Scores | None = None  # of the prompt positions that were asked for


NOTHING = Sampled(np.empty(0, np.int32), np.empty(0, np.bool_))
