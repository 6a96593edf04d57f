"""Decode attention over a cache in fp8: FlashInfer's XQA where it serves (it multiplies in fp8), else a kernel of ours.

On an H200, 256 requests of 100 to 1,600 tokens: XQA reads 3.75 TB/s, ours 2.4 with a thirtieth of the rounding error,
FlashInfer's kernel for 16 bits 1.6.
"""

from __future__ import annotations

from typing import Any

import torch

from minisgl.attention import modules, prebuilt
from minisgl.attention.base import Half, Part
from minisgl.attention.geometry import Paged
from minisgl.kernels.decode import decode, num_parts
from minisgl.kernels.spread import spread
from minisgl.kvcache.pool import KVPool

XQA_SHARES = 4  # times the device's processors: it cuts requests when it believes in more of them, so few fill all
SEMAPHORES = 2**18  # one for each request and KV head

InUse = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # pages, as `kernels.decode` takes it


class NarrowDecode:
    """Steps in which every request has one token, eager and captured ones alike."""

    def __init__(self, library: Any, workspace: torch.Tensor, pool: KVPool, num_heads: int) -> None:
        device = pool.k.device
        self._pool, self._workspace = pool, workspace
        self._processors = torch.cuda.get_device_properties(device).multi_processor_count
        dtype, generation = str(pool.dtype).removeprefix("torch."), torch.cuda.get_device_capability(device)[0]
        group = num_heads // pool.num_kv_heads
        module = modules.xqa(dtype, pool.k.shape[-1], group, pool.page_size, generation)
        self._xqa = library.xqa if module is not None and prebuilt.has(module) else None
        self._semaphores = torch.zeros(SEMAPHORES, dtype=torch.int32, device=device).view(torch.uint32)

    def prepare(self, paged: InUse, widest: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Once a step: what the layers share. `widest`: most pages of a request."""
        return None if self._xqa is None else spread(paged, widest, self._pool.page_size)

    def attend(
        self,
        layer: int,
        q: torch.Tensor,
        paged: InUse,
        prepared: tuple[torch.Tensor, torch.Tensor] | None,
        out: torch.Tensor,
    ) -> None:
        """Queries [requests, heads, dim] to `out`, of the same shape; both contiguous."""
        pool, requests = self._pool, len(q)
        cache = pool.k[layer], pool.v[layer]
        if self._xqa is None or prepared is None:
            decode(q, *cache, paged, pool.empty_page, num_parts(requests, pool.num_kv_heads, self._processors), out)
            return
        table, lengths = prepared
        self._xqa(
            *(q.unsqueeze(1), *cache, table, lengths.view(torch.uint32).unsqueeze(1), out.unsqueeze(1)),
            *(self._workspace, self._semaphores, pool.num_kv_heads, pool.page_size),
            sm_count=XQA_SHARES * self._processors,
        )


class NarrowHalf(Half):
    """The singles of a captured step."""

    def __init__(self, narrow: NarrowDecode, part: Part) -> None:
        self._narrow, self._part = narrow, part
        self._paged = part.device.indices, part.device.bounds, part.device.last

    def plan(self, host: Paged, lengths: torch.Tensor, pinned: torch.Tensor) -> None:
        """It needs none."""

    def prepare(self) -> None:
        self._prepared = self._narrow.prepare(self._paged, self._part.most_pages)

    def attend(self, layer: int, q: torch.Tensor, out: torch.Tensor) -> None:
        own = slice(self._part.tokens)
        self._narrow.attend(layer, q[own], self._paged, self._prepared, out[own])
