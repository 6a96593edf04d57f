"""The contract of an attention backend: one step's queries, keys and values in, attended values out.

A backend is bound to one KV pool. `begin` is called once per step with its geometry, then `attend` once per layer.
The geometry is that of `engine.batch`: requests with one token first, tokens flat, pages by request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from minisgl.kvcache.pool import KVPool


class AttentionBackend(ABC):
    """Attention of `num_heads` query heads over the pool's KV heads, on this rank."""

    def __init__(self, pool: KVPool, num_heads: int) -> None:
        self.pool, self.num_heads = pool, num_heads
        # The step's slots, int64 [tokens], of a backend that has `attend_stored`: known from `begin` on.
        self.slots: torch.Tensor | None = None

    @abstractmethod
    def begin(self, starts: NDArray[np.int32], counts: NDArray[np.int32], pages: NDArray[np.int32]) -> None:
        """Prepare a step: `starts` and `counts` [requests] in tokens, `pages` [requests, widest]."""

    @abstractmethod
    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Store k and v, and let every token attend to its request's tokens up to itself.

        q [tokens, heads, head_dim]; k [tokens, kv_heads, head_dim]; v [tokens, kv_heads, head_dim]; any strides that
        view as rows. Returns [tokens, heads * head_dim].
        """

    def attend_stored(self, layer: int, q: torch.Tensor) -> torch.Tensor:
        """As `attend`, when the caller has stored k and v at `slots`; q is contiguous."""
        raise NotImplementedError

    def freeze(self, shapes: Sequence[tuple[int, int]], most_pages: int) -> list[AttentionBackend] | None:
        """Twins for CUDA graphs: steps of at most so many (tokens, requests), each request of at most `most_pages`
        pages; where both numbers are equal, each request has one token. None: this backend cannot be captured.
        """
        return None
