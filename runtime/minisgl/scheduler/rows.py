"""The running requests as a struct of arrays: one row each, so that a decode step is a handful of array operations.

    a row's tokens   [ 0 ........ computed )[ computed ........ length )
                      keys and values are     to compute next: one token in decode, more in prefill
                      in the cache, or will   (NOT_KNOWN while the step that samples it is in flight)
                      be when the steps in
                      flight have ended

Knows no pages and takes no decisions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minisgl.messages import DecodeParams, Opened, SamplingParams
from minisgl.scheduler.grammar import Held
from minisgl.scheduler.scores import PromptScores

Index = NDArray[np.intp]


@dataclass(slots=True, eq=False)
class Request:
    """A request outside the rows: waiting for its first step, or again after a preemption."""

    uid: int
    priority: int
    arrival: int
    ids: NDArray[np.int32]  # prompt, and after a preemption what was generated
    prompt_len: int
    max_len: int  # prompt + max_tokens
    seed: int
    sampling: SamplingParams
    decode: DecodeParams
    salt: bytes = b""  # of the prefix cache
    withheld: tuple[int, ...] = ()  # what would end it, and must not be chosen before `min_tokens`
    cached_tokens: int = -1  # -1: never admitted
    overtaken: int = 0  # by how many later ones, since it waits for pages
    opened: bool = False  # its first result is out
    scores: PromptScores | None = None  # of its prompt, if they were asked for
    held: Held | None = None  # to a grammar

    @property
    def turn(self) -> tuple[int, int]:
        """Who goes first: the higher priority, then the earlier arrival."""
        return -self.priority, self.arrival

    @property
    def findable(self) -> NDArray[np.int32]:
        """The tokens whose prefix may come from the cache."""
        return self.ids if self.scores is None else self.scores.findable(self.ids)

    def opening(self) -> Opened:
        """What its first result tells."""
        prompt = None if self.scores is None else self.scores.message()
        return Opened(self.uid, max(0, self.cached_tokens), self.decode, prompt)


def wants_extras(sampling: SamplingParams) -> bool:
    """Whether the sampler needs more than the columns of `Sampling`."""
    return bool(
        sampling.presence_penalty
        or sampling.frequency_penalty
        or sampling.repetition_penalty != 1
        or sampling.logit_bias
        or sampling.logprobs is not None
        or sampling.min_tokens
        or sampling.grammar
    )


class RowTable:
    """Arrays by row number. Only rows in `used` mean anything."""

    def __init__(self, num_rows: int, max_len: int) -> None:
        self.used = np.zeros(num_rows, bool)
        self.ended = np.zeros(num_rows, bool)  # its terminal result is out; leaves when no step in flight holds it
        self.flights = np.zeros(num_rows, np.int8)  # steps in flight that hold it
        self.uid = np.zeros(num_rows, np.int64)
        self.arrival = np.zeros(num_rows, np.int64)
        self.priority = np.zeros(num_rows, np.int64)
        self.tokens = np.zeros((num_rows, max_len), np.int32)
        self.length = np.zeros(num_rows, np.int32)
        self.computed = np.zeros(num_rows, np.int32)
        self.max_len = np.zeros(num_rows, np.int32)
        self.min_len = np.zeros(num_rows, np.int32)  # no shorter one ends by a token
        self.stops_at_eos = np.zeros(num_rows, bool)
        self.has_stop_ids = np.zeros(num_rows, bool)
        self.has_extras = np.zeros(num_rows, bool)
        self.has_scores = np.zeros(num_rows, bool)
        self.is_held = np.zeros(num_rows, bool)  # to a grammar
        self.is_mute = np.zeros(num_rows, bool)  # the one token it samples is told to nobody
        self.opened = np.zeros(num_rows, bool)
        self.spoiled = np.zeros(num_rows, bool)  # its keys and values may hold NaN: nobody may reuse them
        self.temperature = np.zeros(num_rows, np.float32)
        self.top_k = np.zeros(num_rows, np.int32)
        self.top_p = np.zeros(num_rows, np.float32)
        self.min_p = np.zeros(num_rows, np.float32)
        self.seed = np.zeros(num_rows, np.uint64)
        self.request: list[Request | None] = [None] * num_rows

    def free_row(self) -> int | None:
        """The lowest row that is not used."""
        row = int(np.argmin(self.used))
        return None if self.used[row] else row

    def by_turn(self) -> Index:
        """Rows that go on, in the order in which they may take from each other."""
        rows = np.flatnonzero(self.used & ~self.ended)
        return rows[np.lexsort((self.arrival[rows], -self.priority[rows]))]

    def prompts(self, counts: NDArray[np.int32]) -> Index:
        """Rows with several tokens to compute, by turn; not those of which a step takes all, with its `counts`."""
        rows = self.by_turn()
        pending = self.length[rows] - self.computed[rows]
        return rows[(pending > 1) & (pending > counts[rows])]

    def of(self, row: int) -> Request:
        request = self.request[row]
        assert request is not None, "the row is not used"
        return request

    def put(self, row: int, request: Request, computed: int) -> None:
        sampling = request.sampling
        self.used[row] = True
        self.ended[row] = self.spoiled[row] = False
        self.uid[row], self.arrival[row], self.priority[row] = request.uid, request.arrival, request.priority
        self.tokens[row, : len(request.ids)] = request.ids
        self.length[row], self.computed[row], self.max_len[row] = len(request.ids), computed, request.max_len
        self.is_mute[row] = sampling.max_tokens == 0
        self.min_len[row] = request.prompt_len + (1 if self.is_mute[row] else sampling.min_tokens)
        self.stops_at_eos[row] = not sampling.ignore_eos
        self.has_stop_ids[row] = bool(sampling.stop_token_ids)
        self.has_extras[row] = wants_extras(sampling)
        self.has_scores[row] = request.scores is not None
        self.is_held[row] = request.held is not None
        self.opened[row] = request.opened
        self.temperature[row], self.top_k[row] = sampling.temperature, sampling.top_k
        self.top_p[row], self.min_p[row], self.seed[row] = sampling.top_p, sampling.min_p, request.seed
        self.request[row] = request

    def take(self, row: int) -> Request:
        """Empty a row; its request knows all its tokens again."""
        request = self.of(row)
        assert not self.flights[row], "a step in flight still writes to this row's pages"
        request.ids = self.tokens[row, : self.length[row]].copy()
        request.opened = bool(self.opened[row])
        self.used[row] = False
        self.request[row] = None
        return request
