"""Decode attention in C, on a CPU: keys and values are read where they lie.

In torch a decode step gathers the pages of every layer and multiplies many small matrices, each with its overhead.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from minisgl.attention import geometry
from minisgl.attention.base import AttentionBackend
from minisgl.kernels.native import Kernels, Shape
from minisgl.kvcache.pool import KVPool


class NativeAttention(AttentionBackend):
    """Steps in which every request has one token; `attend` is one call that stores, attends and writes the result."""

    def __init__(self, pool: KVPool, num_heads: int) -> None:
        super().__init__(pool, num_heads)
        self._call = Kernels(pool.k.dtype).decode
        self._dim = pool.k.shape[-1]
        self._cache = [(k.data_ptr(), v.data_ptr()) for k, v in zip(pool.k, pool.v, strict=True)]
        self._scores = np.empty(0, np.float32)

    def begin(self, starts: NDArray[np.int32], counts: NDArray[np.int32], pages: NDArray[np.int32]) -> None:
        pool, rows = self.pool, len(starts)
        self._pages = np.ascontiguousarray(pages)
        self._slots = geometry.slots(starts, counts, pages, pool.page_size)
        self._lengths = starts + 1
        needed = self.num_heads // pool.num_kv_heads * int(self._lengths.max())
        if needed > len(self._scores):
            self._scores = np.empty(2 * needed, np.float32)
        self._shape = Shape(
            rows, self.num_heads, pool.num_kv_heads, self._dim, pool.page_size, pages.shape[1], 0, 0, 0, self._dim**-0.5
        )
        self._step = tuple(x.ctypes.data for x in (self._pages, self._slots, self._lengths, self._scores))

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        shape = self._shape
        shape.q_stride, shape.k_stride, shape.v_stride = q.stride(0), k.stride(0), v.stride(0)
        out = q.new_empty(len(q), self.num_heads * self._dim)
        self._call(shape, q.data_ptr(), k.data_ptr(), v.data_ptr(), *self._cache[layer], *self._step, out.data_ptr())
        return out
