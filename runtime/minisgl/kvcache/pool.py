"""The tensors of the KV cache: [layers, pages + 1, page_size, kv_heads, head_dim] for keys and for values.

On a CPU a token's heads lie side by side, which one thread reads; on a GPU a page's tokens do, head by head, since each
head is read by a processor of its own (2% faster on an H200). Whoever reads the tensors goes by their strides:

    page    on a CPU   [ token 0: head 0, head 1 | token 1: head 0, head 1 | … ]
            on a GPU   [ head 0: token 0, token 1, … | head 1: token 0, token 1, … ]

The last page is never given to a request: it stands where a block table needs a page that holds nothing, and stays
zero. Who owns which page is not known here.

In fp8 (e4m3) they are half as large as in 16 bits. There is no scale: its smallest step is 2^-9, and what is beyond 448
is stored as 448.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

FP8 = torch.float8_e4m3fn
FP8_LARGEST = 448.0
FP8_NAN = 0x7F  # but for the sign; there is no infinity


class KVPool:
    """Keys and values of all layers, written by slot (page * page_size + offset) and read by page.

    `dtype` is what they come and go in; they are kept in it or, where `cache_dtype` says so, in FP8.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_pages: int,
        page_size: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: str,
        cache_dtype: torch.dtype | None = None,
        by_head: bool | None = None,
    ) -> None:
        """`by_head`: how a page's tokens lie; by default as the device reads them best."""
        self.dtype, cache_dtype = dtype, cache_dtype or dtype
        self.is_narrow = cache_dtype != dtype
        assert not self.is_narrow or cache_dtype == FP8, "the only other format"
        shape = (num_layers, num_pages + 1, page_size, num_kv_heads, head_dim)
        self.page_size, self.num_kv_heads = page_size, num_kv_heads
        self.empty_page = num_pages
        # Zeros, not garbage: a masked position adds 0 * value to the sum, and 0 * NaN is NaN.
        self._by_head = device != "cpu" if by_head is None else by_head
        if self._by_head:
            shape = (num_layers, num_pages + 1, num_kv_heads, page_size, head_dim)
        self.k, self.v = _zeros(shape, cache_dtype, device), _zeros(shape, cache_dtype, device)
        if self._by_head:
            self.k, self.v = self.k.transpose(2, 3), self.v.transpose(2, 3)
        # Views made once, since indexing a tensor costs as much as a small kernel. Of FP8 as bytes: torch can do little
        # else with it than convert it.
        k, v = (x.view(torch.uint8) if self.is_narrow else x for x in (self.k, self.v))
        self._layers = list(zip(k, v, strict=True))
        if not self._by_head:
            slots = (num_layers, -1, num_kv_heads * head_dim)
            rows = (num_layers, num_pages + 1, page_size * num_kv_heads * head_dim)
            self._slots = list(zip(k.view(slots), v.view(slots), strict=True))
            self._layers = list(zip(k.view(rows), v.view(rows), strict=True))

    @property
    def num_bytes(self) -> int:
        return 2 * self.k.numel() * self.k.element_size()

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys and values."""
        return self.num_bytes // (self.k.shape[1] * self.page_size)

    def place(self, values: NDArray[np.generic]) -> torch.Tensor:
        """A step's numbers beside the cache. On a GPU from pinned memory: the copy waits for no step in flight."""
        host = torch.from_numpy(values)
        return host.pin_memory().to(self.k.device, non_blocking=True) if self.k.is_cuda else host

    def store(self, layer: int, slots: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        """Write one row per token: `slots` int64 [tokens], `k` and `v` [tokens, kv_heads * head_dim]."""
        if self.is_narrow:
            k, v = narrow(k).view(torch.uint8), narrow(v).view(torch.uint8)
        if self._by_head:
            pages, places = slots // self.page_size, slots % self.page_size
            for cache, new in zip(self._layers[layer], (k, v), strict=True):
                cache[pages, places] = new.view(len(new), self.num_kv_heads, -1)
        else:
            for cache, new in zip(self._slots[layer], (k, v), strict=True):
                cache.index_copy_(0, slots, new)

    def gather(
        self, layer: int, pages: torch.Tensor, into: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Copy whole pages: `pages` int64 [n] to two tensors of [n, page_size * kv_heads * head_dim]."""
        cached = self._layers[layer]
        if into is not None and not self.is_narrow and not self._by_head:
            for source, target in zip(cached, into, strict=True):
                torch.index_select(source, 0, pages, out=target)
            return into
        keys, values = (x.index_select(0, pages).flatten(1) for x in cached)
        if self.is_narrow:
            keys, values = (x.view(FP8).to(self.dtype) for x in (keys, values))
        return (keys, values) if into is None else (into[0].copy_(keys), into[1].copy_(values))

    def scrub(self, pages: torch.Tensor) -> None:
        """Replace NaN and infinity in `pages` (int64): a failed request must not harm the next owner."""
        for cache in (self.k, self.v):
            if self.is_narrow:
                read = cache.view(torch.uint8)[:, pages]
                cache.view(torch.uint8)[:, pages] = read.masked_fill(read & FP8_NAN == FP8_NAN, 0)
            else:
                cache[:, pages] = cache[:, pages].nan_to_num(0.0, 0.0, 0.0)


def narrow(x: torch.Tensor) -> torch.Tensor:
    """To FP8: rounded, and what is too large becomes the largest (a bare conversion would make it NaN)."""
    return x.clamp(-FP8_LARGEST, FP8_LARGEST).to(FP8)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> torch.Tensor:
    """On a CPU, memory that the kernel hands out page by page as it is first written, which torch.zeros is not."""
    num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if device != "cpu":
        return torch.zeros(num_bytes, dtype=torch.uint8, device=device).view(dtype).view(shape)
    return torch.from_numpy(np.zeros(num_bytes, np.uint8)).view(dtype).view(shape)
