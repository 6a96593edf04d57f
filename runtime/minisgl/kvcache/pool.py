"""The tensors of the KV cache: [layers, pages + 1, page_size, kv_heads, head_dim] for keys and for values.

The last page is never given to a request: it stands where a block table needs a page that holds nothing, and stays
zero. Who owns which page is not known here.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


class KVPool:
    """Keys and values of all layers, written by slot (page * page_size + offset) and read by page."""

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
    ) -> None:
        shape = (num_layers, num_pages + 1, page_size, num_kv_heads, head_dim)
        self.page_size, self.num_kv_heads = page_size, num_kv_heads
        self.empty_page = num_pages
        # Zeros, not garbage: a masked position adds 0 * value to the sum, and 0 * NaN is NaN.
        self.k, self.v = _zeros(shape, dtype, device), _zeros(shape, dtype, device)
        # Views made once, since indexing a tensor costs as much as a small kernel.
        slots = (num_layers, -1, num_kv_heads * head_dim)
        rows = (num_layers, num_pages + 1, page_size * num_kv_heads * head_dim)
        self._k_slots, self._v_slots = list(self.k.view(slots)), list(self.v.view(slots))
        self._k_pages, self._v_pages = list(self.k.view(rows)), list(self.v.view(rows))

    @property
    def num_bytes(self) -> int:
        return 2 * self.k.numel() * self.k.element_size()

    def place(self, values: NDArray[np.generic]) -> torch.Tensor:
        """A step's numbers beside the cache. On a GPU from pinned memory: the copy waits for no step in flight."""
        host = torch.from_numpy(values)
        return host.pin_memory().to(self.k.device, non_blocking=True) if self.k.is_cuda else host

    def store(self, layer: int, slots: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        """Write one row per token: `slots` int64 [tokens], `k` and `v` [tokens, kv_heads * head_dim]."""
        self._k_slots[layer].index_copy_(0, slots, k)
        self._v_slots[layer].index_copy_(0, slots, v)

    def gather(
        self, layer: int, pages: torch.Tensor, into: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Copy whole pages: `pages` int64 [n] to two tensors of [n, page_size * kv_heads * head_dim]."""
        keys, values = self._k_pages[layer], self._v_pages[layer]
        if into is None:
            return keys.index_select(0, pages), values.index_select(0, pages)
        torch.index_select(keys, 0, pages, out=into[0])
        torch.index_select(values, 0, pages, out=into[1])
        return into

    def scrub(self, pages: torch.Tensor) -> None:
        """Replace NaN and infinity in `pages` (int64): a failed request must not harm the next owner."""
        for cache in (self.k, self.v):
            cache[:, pages] = cache[:, pages].nan_to_num(0.0, 0.0, 0.0)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> torch.Tensor:
    """On a CPU, memory that the kernel hands out page by page as it is first written, which torch.zeros is not."""
    if device != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return torch.from_numpy(np.zeros(num_bytes, np.uint8)).view(dtype).view(shape)
