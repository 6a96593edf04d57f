"""FlashInfer: paged attention with tensor cores, planned once per step for all layers.

The package takes seconds to import and compiles kernels on first use: it is imported only when this backend is chosen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from minisgl.attention import geometry
from minisgl.attention.base import AttentionBackend
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
        out: torch.Tensor = self._now.run(q, (self.pool.k[layer], self.pool.v[layer]))
        return out.flatten(1)

    def freeze(self, size: int, most_pages: int) -> AttentionBackend:
        return FrozenDecode(self, size, most_pages)


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


class FrozenDecode(AttentionBackend):
    """Decode of exactly `size` requests with buffers that never move, for a CUDA graph; fewer are padded.

    A padded request has one token in the empty page. Host buffers come in twos: a step's copy to the device may not
    have happened when the next step is planned.
    """

    slots: torch.Tensor

    def __init__(self, eager: FlashInferAttention, size: int, most_pages: int) -> None:
        super().__init__(eager.pool, eager.num_heads)
        device = self.pool.k.device
        self.size = size
        # One buffer, so that one copy brings a step's slots (two words each) and pages.
        self._words = torch.zeros(2 * size + size * most_pages, dtype=torch.int32, device=device)
        self.slots, self._indices = self._words[: 2 * size].view(torch.int64), self._words[2 * size :]
        self._wrapper = library().BatchDecodeWithPagedKVCacheWrapper(
            eager.workspace,
            "NHD",
            use_cuda_graph=True,
            use_tensor_cores=True,
            paged_kv_indptr_buffer=torch.zeros(size + 1, dtype=torch.int32, device=device),
            paged_kv_indices_buffer=self._indices,
            paged_kv_last_page_len_buffer=torch.ones(size, dtype=torch.int32, device=device),
        )
        plan_host = self._wrapper._pin_memory_int_workspace_buffer
        self._hosts = [_Host(size, most_pages, plan_host), _Host(size, most_pages, torch.empty_like(plan_host))]

    def begin(self, starts: NDArray[np.int32], counts: NDArray[np.int32], pages: NDArray[np.int32]) -> None:
        pool, page_size, real = self.pool, self.pool.page_size, len(starts)
        host = self._hosts[0]
        self._hosts.reverse()
        host.copied.synchronize()
        lengths = host.lengths
        lengths[:real] = starts + 1
        lengths[real:] = 1
        indices, bounds = geometry.page_list(lengths[:real], pages, page_size)
        host.bounds[: real + 1] = bounds
        host.bounds[real + 1 :] = bounds[-1] + np.arange(1, self.size - real + 1)
        total = int(host.bounds[-1])
        host.indices[: len(indices)] = indices
        host.indices[len(indices) : total] = pool.empty_page
        host.last[:] = geometry.last_page_len(lengths, page_size)
        host.slots[:real] = geometry.slots(starts, counts, pages, page_size)
        host.slots[real:] = pool.empty_page * page_size

        used = 2 * self.size + total
        self._words[:used].copy_(host.words[:used], non_blocking=True)
        self._wrapper._pin_memory_int_workspace_buffer = host.plan
        self._wrapper.plan(
            host.tensor("bounds"),
            self._indices[:total],
            host.tensor("last"),
            self.num_heads,
            pool.num_kv_heads,
            pool.k.shape[-1],
            page_size,
            q_data_type=pool.k.dtype,
        )
        host.copied.record()

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        self.pool.store(layer, self.slots, k.flatten(1), v.flatten(1))
        return self.attend_stored(layer, q.contiguous())

    def attend_stored(self, layer: int, q: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self._wrapper.run(q, (self.pool.k[layer], self.pool.v[layer]))
        return out.flatten(1)


class _Host:
    """Pinned arrays of one step, as numpy to write and as tensors to copy from."""

    def __init__(self, size: int, most_pages: int, plan: torch.Tensor) -> None:
        self.plan = plan.pin_memory() if not plan.is_pinned() else plan
        self.words = torch.zeros(2 * size + size * most_pages, dtype=torch.int32, pin_memory=True)
        self.slots, self.indices = self.words[: 2 * size].view(torch.int64).numpy(), self.words[2 * size :].numpy()
        self._tensors = {
            "bounds": torch.zeros(size + 1, dtype=torch.int32, pin_memory=True),
            "last": torch.zeros(size, dtype=torch.int32, pin_memory=True),
        }
        self.bounds, self.last = (tensor.numpy() for tensor in self._tensors.values())
        self.lengths = np.zeros(size, np.int32)
        self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def tensor(self, name: str) -> torch.Tensor:
        return self._tensors[name]
