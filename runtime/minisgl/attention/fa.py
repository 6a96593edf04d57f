"""FlashAttention: one kernel call per layer for all requests, whatever is cached of them; it reads pages by a table.

queries   0 1 4          request 0: 1 query, request 1: 3
lengths   7 3            tokens of each request, those of this step among them
table     7 3 / 5 .      pages of each request; what is behind its last one is not read
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from minisgl.attention import geometry
from minisgl.attention.base import AttentionBackend, CapturedAttention, Half, Part
from minisgl.attention.flash import Flash, load
from minisgl.attention.frozen import freeze
from minisgl.attention.geometry import Paged
from minisgl.kvcache.pool import KVPool
from minisgl.plan.shapes import Shape


class FlashAttention(AttentionBackend):
    """A step of any requests. `flash`: the kernel, else that of the library that is installed."""

    slots: torch.Tensor

    def __init__(self, pool: KVPool, num_heads: int, flash: Flash | None = None) -> None:
        super().__init__(pool, num_heads)
        self._flash = flash or load(pool)

    def begin(self, starts: NDArray[np.int32], counts: NDArray[np.int32], pages: NDArray[np.int32]) -> None:
        self.slots = self.pool.place(geometry.slots(starts, counts, pages, self.pool.page_size))
        requests = len(counts)
        words = self.pool.place(np.concatenate([geometry.bounds(counts), starts + counts, pages.ravel()]))
        queries, lengths, table = torch.split(words, [requests + 1, requests, pages.size])
        self._step = queries, lengths, table.view(pages.shape), int(counts.max())

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        self.pool.store(layer, self.slots, k.flatten(1), v.flatten(1))
        return self.attend_stored(layer, q.contiguous())

    def attend_stored(self, layer: int, q: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        out = torch.empty_like(q) if out is None else out
        self._flash(q, self.pool.k[layer], self.pool.v[layer], *self._step, out)
        return out.flatten(1)

    def halves(self, parts: Sequence[Part]) -> list[Half]:
        return [FlashHalf(self._flash, self.pool, part) for part in parts]

    def freeze(self, shapes: Sequence[Shape], most_pages: int, own: Sequence[int]) -> list[CapturedAttention]:
        return freeze(self, self, shapes, most_pages, own)


class FlashHalf(Half):
    """A part of a captured step: its table is made from the list of pages, once for all layers."""

    def __init__(self, flash: Flash, pool: KVPool, part: Part) -> None:
        self._flash, self._pool, self._part = flash, pool, part
        self._paged = part.device.indices, part.device.bounds, part.device.last

    def plan(self, host: Paged, lengths: torch.Tensor, pinned: torch.Tensor) -> None:
        """It needs none."""

    def prepare(self) -> None:
        from minisgl.kernels.spread import spread

        self._table, self._lengths = spread(self._paged, self._part.most_pages, self._pool.page_size)

    def attend(self, layer: int, q: torch.Tensor, out: torch.Tensor) -> None:
        part, cache = self._part, (self._pool.k[layer], self._pool.v[layer])
        most = 1 if part.is_decode else part.tokens
        own = slice(part.tokens)
        self._flash(q[own], *cache, part.device.queries, self._lengths, self._table, most, out[own])
