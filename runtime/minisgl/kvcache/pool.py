"""The tensors of the KV cache: [layers, pages + 1, page_size, kv_heads, head_dim] for keys and for values.

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
    ) -> None:
        self.dtype, cache_dtype = dtype, cache_dtype or dtype
        self.is_narrow = cache_dtype != dtype
        assert not self.is_narrow or cache_dtype == FP8, "the only other format"
        shape = (num_layers, num_pages + 1, page_size, num_kv_heads, head_dim)
        self.page_size, self.num_kv_heads = page_size, num_kv_heads
        self.empty_page = num_pages
        # Zeros, not garbage: a masked position adds 0 * value to the sum, and 0 * NaN is NaN.
        self.k, self.v = _zeros(shape, cache_dtype, device), _zeros(shape, cache_dtype, device)
        # Views made once, since indexing a tensor costs as much as a small kernel. Of FP8 as bytes: torch can do little
        # else with it than convert it.
        k, v = (x.view(torch.uint8) if self.is_narrow else x for x in (self.k, self.v))
        slots = (num_layers, -1, num_kv_heads * head_dim)
        rows = (num_layers, num_pages + 1, page_size * num_kv_heads * head_dim)
        self._k_slots, self._v_slots = list(k.view(slots)), list(v.view(slots))
        self._k_pages, self._v_pages = list(k.view(rows)), list(v.view(rows))

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
        self._k_slots[layer].index_copy_(0, slots, k)
        self._v_slots[layer].index_copy_(0, slots, v)

    def gather(
        self, layer: int, pages: torch.Tensor, into: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Copy whole pages: `pages` int64 [n] to two tensors of [n, page_size * kv_heads * head_dim]."""
        keys, values = self._k_pages[layer], self._v_pages[layer]
        if self.is_narrow:
            wide = tuple(x.index_select(0, pages).view(FP8).to(self.dtype) for x in (keys, values))
            return (wide[0], wide[1]) if into is None else (into[0].copy_(wide[0]), into[1].copy_(wide[1]))
        if into is None:
            return keys.index_select(0, pages), values.index_select(0, pages)
        torch.index_select(keys, 0, pages, out=into[0])
        torch.index_select(values, 0, pages, out=into[1])
        return into

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
