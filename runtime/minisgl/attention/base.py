"""The contract of an attention backend: one step's queries, keys and values in, attended values out.

A backend is bound to one KV pool. `begin` is called once per step with its geometry, then `attend` once per layer.
The geometry is that of `engine.batch`: requests with one token first, tokens flat, pages by request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from minisgl.attention.geometry import Paged
from minisgl.kvcache.pool import KVPool
from minisgl.plan.shapes import Shape


class Part(NamedTuple):
    """The requests of a captured step that one kernel attends, in memory that never moves."""

    device: Paged
    most_pages: int  # of a request
    tokens: int  # most queries; where each request has one, as many as requests
    is_decode: bool
    begins_late: bool  # its queries begin behind another part's
    is_shared: bool  # a request's past is read by several blocks of threads, also where requests fill the device
    plan: torch.Tensor  # bytes on the device, for how a kernel shares the work among processors
    scratch: torch.Tensor  # as large as the output


class Half(ABC):
    """A kernel for a `Part` of captured steps."""

    is_whole = False  # one block of threads reads all of a request's past, however long it is

    @abstractmethod
    def plan(self, host: Paged, lengths: torch.Tensor, pinned: torch.Tensor) -> None:
        """Before a step: `host` is what the device is going to have, `lengths` int32 [requests] in tokens, `pinned` as
        large as `Part.plan`.
        """

    @abstractmethod
    def prepare(self) -> None:
        """In the graph, before the first layer: what all layers share."""

    @abstractmethod
    def attend(self, layer: int, q: torch.Tensor, out: torch.Tensor) -> None:
        """In the graph: the part's queries of q [tokens, heads, head_dim] to the same lines of `out`, and nothing to
        those before them. For a decode part, lines that are padding are overwritten.
        """


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

    def attend_stored(self, layer: int, q: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """As `attend`, when the caller has stored k and v at `slots`; q and `out`, of its shape, are contiguous."""
        raise NotImplementedError

    splits = False  # whether its `halves` share a few tokens' long past among processors

    def halves(self, parts: Sequence[Part]) -> list[Half]:
        """This backend's kernels for captured steps, one for each part; the configuration asks only where there are."""
        raise NotImplementedError

    def freeze(self, shapes: Sequence[Shape], most_pages: int, own: Sequence[int]) -> list[CapturedAttention]:
        """Twins for CUDA graphs, one for each shape; every request has at most `most_pages` pages. `own`: how many
        numbers of the caller's each brings along.
        """
        raise NotImplementedError


class CapturedAttention(AttentionBackend):
    """Attention in a CUDA graph. A step's numbers, the caller's among them, come to the device in one copy."""

    is_whole = False  # as a `Half`'s
    own: torch.Tensor  # the caller's, int64, on the device
    own_hosts: list[torch.Tensor]  # the same in pinned memory, by turn: one may wait for its copy, one be written

    @abstractmethod
    def open(self) -> int:
        """The turn whose memory may be written now."""

    @abstractmethod
    def bring(self, turn: int, starts: NDArray[np.int32], counts: NDArray[np.int32], pages: NDArray[np.int32]) -> None:
        """As `begin`, once the caller has written its own numbers of the turn that was opened."""

    def begin(self, starts: NDArray[np.int32], counts: NDArray[np.int32], pages: NDArray[np.int32]) -> None:
        self.bring(self.open(), starts, counts, pages)
