"""The running requests as a struct of arrays: one row each, so that a decode step is a handful of array operations.

    a row's tokens   [ 0 ........ computed )[ computed ........ length )
                      keys and values are     to compute next: one token in decode, more in prefill
                      in the cache

Knows no pages and takes no decisions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minisgl.messages import DecodeParams, SamplingParams

Index = NDArray[np.intp]


@dataclass(slots=True, eq=False)
class Request:
    """A request outside the rows: waiting for its first step, or again after a preemption."""

    uid: int
    arrival: int  # order of arrival: the older goes first
    ids: NDArray[np.int32]  # prompt, and after a preemption what was generated
    max_len: int  # prompt + max_tokens
    seed: int
    sampling: SamplingParams
    decode: DecodeParams
    cached_tokens: int = -1  # -1: never admitted
    opened: bool = False  # its first result is out


class RowTable:
    """Arrays by row number. Only rows in `used` mean anything."""

    def __init__(self, num_rows: int, max_len: int) -> None:
        self.used = np.zeros(num_rows, bool)
        self.uid = np.zeros(num_rows, np.int64)
        self.arrival = np.zeros(num_rows, np.int64)
        self.tokens = np.zeros((num_rows, max_len), np.int32)
        self.length = np.zeros(num_rows, np.int32)
        self.computed = np.zeros(num_rows, np.int32)
        self.max_len = np.zeros(num_rows, np.int32)
        self.stops_at_eos = np.zeros(num_rows, bool)
        self.has_stop_ids = np.zeros(num_rows, bool)
        self.opened = np.zeros(num_rows, bool)
        self.aborted = np.zeros(num_rows, bool)  # while in flight; ends when its step is complete
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

    def by_age(self) -> Index:
        """Used rows, the oldest request first."""
        rows = np.flatnonzero(self.used)
        return rows[np.argsort(self.arrival[rows])]

    def put(self, row: int, request: Request, computed: int) -> None:
        sampling = request.sampling
        self.used[row] = True
        self.uid[row], self.arrival[row] = request.uid, request.arrival
        self.tokens[row, : len(request.ids)] = request.ids
        self.length[row], self.computed[row], self.max_len[row] = len(request.ids), computed, request.max_len
        self.stops_at_eos[row] = not sampling.ignore_eos
        self.has_stop_ids[row] = bool(sampling.stop_token_ids)
        self.opened[row], self.aborted[row] = request.opened, False
        self.temperature[row], self.top_k[row] = sampling.temperature, sampling.top_k
        self.top_p[row], self.min_p[row], self.seed[row] = sampling.top_p, sampling.min_p, request.seed
        self.request[row] = request

    def take(self, row: int) -> Request:
        """Empty a row; its request knows all its tokens again."""
        request = self.request[row]
        assert request is not None
        request.ids = self.tokens[row, : self.length[row]].copy()
        request.opened = bool(self.opened[row])
        self.used[row] = False
        self.request[row] = None
        return request
