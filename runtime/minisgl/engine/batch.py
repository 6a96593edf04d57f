"""One decided step, as arrays: what the scheduler hands to the engine, and what rank 0 sends to the other ranks.

request        0    1    2         those with one token first: they are attended as one padded batch
counts         1    1    3         tokens to compute now
starts         9    4    16        tokens whose keys and values are in the cache already
tokens         a    b    c d e     flat, request by request; `c` stands at position 16
pages row      [..] [..] [..]      the request's pages, from its first token on; unused entries are 0
sampled        0    1    -         requests whose last token here is their last known one: they get a next token
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Batch:
    """The arrays of the picture. Sampling arrays have one entry per request in `sampled`."""

    tokens: NDArray[np.int32]
    starts: NDArray[np.int32]
    counts: NDArray[np.int32]
    pages: NDArray[np.int32]  # [requests, widest]
    sampled: NDArray[np.int32]
    temperature: NDArray[np.float32]  # 0: greedy
    top_k: NDArray[np.int32]  # 0: off
    top_p: NDArray[np.float32]
    min_p: NDArray[np.float32]
    seeds: NDArray[np.uint64]
    scrub: NDArray[np.int32]  # pages that a failed request left: every rank clears NaN from them before it computes

    @property
    def num_single(self) -> int:
        """Requests with one token; they come first."""
        return int(np.count_nonzero(self.counts == 1))

    def pack(self) -> list[bytes]:
        """The arrays as bytes, in order of definition."""
        return [getattr(self, field.name).tobytes() for field in fields(self)]

    @classmethod
    def unpack(cls, packed: list[bytes]) -> Self:
        arrays = {
            field.name: np.frombuffer(data, DTYPES[field.name]) for field, data in zip(fields(cls), packed, strict=True)
        }
        arrays["pages"] = arrays["pages"].reshape(len(arrays["starts"]), -1)
        return cls(**arrays)


DTYPES = {
    "tokens": np.int32,
    "starts": np.int32,
    "counts": np.int32,
    "pages": np.int32,
    "sampled": np.int32,
    "temperature": np.float32,
    "top_k": np.int32,
    "top_p": np.float32,
    "min_p": np.float32,
    "seeds": np.uint64,
    "scrub": np.int32,
}
