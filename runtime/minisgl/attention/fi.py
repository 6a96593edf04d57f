"""FlashInfer: paged attention with tensor cores, planned once per step for all layers.

The package takes seconds to import and compiles kernels on first use: it is imported only when this backend is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from minisgl.attention import geometry
from minisgl.attention.base import AttentionBackend
from minisgl.attention.frozen import FrozenAttention, Layout, Room
from minisgl.errors import StartError
from minisgl.kvcache.pool import KVPool
from minisgl.termination import Reason

WORKSPACE_BYTES = 256 * 2**20  # FlashInfer's for partial results of split requests


def library() -> Any:
    """The package, or one line that says how to get it."""
    try:
        import flashinfer
    except ImportError as error:
        raise StartError(
            Reason.DEVICE_UNAVAILABLE,
            f"--attention-backend fi needs the package flashinfer-python ({error}); "
            "pip install minisgl[gpu], or use --attention-backend torch",
        ) from error
    return flashinfer


class FlashInferAttention(AttentionBackend):
    """A step of any requests: one kernel call per layer."""

    slots: torch.Tensor

    def __init__(self, pool: KVPool, num_heads: int) -> None:
        super().__init__(pool, num_heads)
        self.workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=pool.k.device)
        self._decode = library().BatchDecodeWithPagedKVCacheWrapper(self.workspace, "NHD", use_tensor_cores=True)
        self._prefill = library().BatchPrefillWithPagedKVCacheWrapper(self.workspace, "NHD")
        self._plans = {wrapper: _Plans(wrapper) for wrapper in (self._decode, self._prefill)}

    def begin(self, starts: NDArray[np.int32], counts: NDArray[np.int32], pages: NDArray[np.int32]) -> None:
        place, size = self.pool.place, self.pool.page_size
        lengths = starts + counts
        indices, bounds = geometry.page_list(lengths, pages, size)
        last = torch.from_numpy(geometry.last_page_len(lengths, size))
        self.slots = place(geometry.slots(starts, counts, pages, size))
        paged = torch.from_numpy(bounds), place(indices), last
        shape = self.num_heads, self.pool.num_kv_heads, self.pool.k.shape[-1], size
        self._now = self._decode if int(counts.max()) == 1 else self._prefill
        with self._plans[self._now]:
            if self._now is self._decode:
                self._now.plan(*paged, *shape, q_data_type=self.pool.k.dtype)
            else:
                queries = torch.from_numpy(geometry.bounds(counts))
                self._now.plan(queries, *paged, *shape, causal=True, q_data_type=self.pool.k.dtype)

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        self.pool.store(layer, self.slots, k.flatten(1), v.flatten(1))
        return self.attend_stored(layer, q.contiguous())

    def attend_stored(self, layer: int, q: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(q)  # given one, it does not fill one with zeros first
        self._now.run(q, (self.pool.k[layer], self.pool.v[layer]), out=out)
        return out.flatten(1)

    def freeze(self, shapes: Sequence[tuple[int, int]], most_pages: int) -> list[AttentionBackend]:
        layouts = [Layout(tokens, requests, most_pages) for tokens, requests in shapes]
        room = Room(self.pool, self.num_heads, layouts)
        return [
            FrozenAttention(library(), self.workspace, self.pool, self.num_heads, layout, room) for layout in layouts
        ]


class _Plans:
    """Where a wrapper writes its plan before it is copied: pinned memory in twos, so that a step can be planned while
    the one before waits for the device, and what it waits for when both are taken.
    """

    def __init__(self, wrapper: Any) -> None:
        self._wrapper = wrapper
        first = wrapper._pin_memory_int_workspace_buffer
        self._places = [(memory, torch.cuda.Event()) for memory in (first, torch.empty_like(first, pin_memory=True))]  # type: ignore[no-untyped-call]

    def __enter__(self) -> None:
        memory, copied = self._places[0]
        copied.synchronize()
        self._wrapper._pin_memory_int_workspace_buffer = memory

    def __exit__(self, *_: object) -> None:
        self._places[0][1].record()
        self._places.reverse()
