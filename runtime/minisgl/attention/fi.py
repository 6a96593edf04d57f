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
from minisgl.attention.base import AttentionBackend, CapturedAttention, Half, Part
from minisgl.attention.fi_half import FlashInferHalf
from minisgl.attention.frozen import freeze
from minisgl.attention.modules import HOPPER
from minisgl.attention.narrow import NarrowDecode, NarrowHalf
from minisgl.errors import StartError
from minisgl.kvcache.pool import KVPool
from minisgl.plan.shapes import SPLIT_TOKENS, Shape, shared_bytes, split_bytes
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
    """A step of any requests: a kernel call per layer for those with one token, and one for the others.

    The kernel for prompts would read a running request's keys once for each query head. Over a cache in fp8, those with
    one token are `attention.narrow`'s.
    """

    slots: torch.Tensor
    splits = True

    def __init__(self, pool: KVPool, num_heads: int) -> None:
        super().__init__(pool, num_heads)
        self.workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=pool.k.device)
        self._decode = library().BatchDecodeWithPagedKVCacheWrapper(self.workspace, "NHD", use_tensor_cores=True)
        self._prefill = library().BatchPrefillWithPagedKVCacheWrapper(self.workspace, "NHD")
        self._narrow = NarrowDecode(library(), self.workspace, pool, num_heads) if pool.is_narrow else None
        self._plans = {wrapper: _Plans(wrapper) for wrapper in (self._decode, self._prefill)}

    def begin(self, starts: NDArray[np.int32], counts: NDArray[np.int32], pages: NDArray[np.int32]) -> None:
        size = self.pool.page_size
        self.slots = self.pool.place(geometry.slots(starts, counts, pages, size))
        single = self._num_single = int(np.count_nonzero(counts == 1))
        kinds = {"q_data_type": self.pool.dtype, "kv_data_type": self.pool.k.dtype}
        shape = self.num_heads, self.pool.num_kv_heads, self.pool.k.shape[-1], size
        lengths = starts + counts
        if single and self._narrow is not None:
            bounds, in_use, last = self._paged(lengths[:single], pages[:single])
            self._in_use = in_use, self.pool.place(bounds.numpy()), self.pool.place(last.numpy())
            self._prepared = self._narrow.prepare(self._in_use, pages.shape[1])
        elif single:
            with self._plans[self._decode]:
                self._decode.plan(*self._paged(lengths[:single], pages[:single]), *shape, **kinds)
        if single < len(counts):
            queries = torch.from_numpy(geometry.bounds(counts[single:]))
            paged = self._paged(lengths[single:], pages[single:])
            with self._plans[self._prefill]:
                self._prefill.plan(queries, *paged, *shape, causal=True, **kinds)

    def _paged(
        self, lengths: NDArray[np.int32], pages: NDArray[np.int32]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Bounds, pages and the tokens in the last pages, of some requests."""
        indices, bounds = geometry.page_list(lengths, pages, self.pool.page_size)
        last = torch.from_numpy(geometry.last_page_len(lengths, self.pool.page_size))
        return torch.from_numpy(bounds), self.pool.place(indices), last

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        self.pool.store(layer, self.slots, k.flatten(1), v.flatten(1))
        return self.attend_stored(layer, q.contiguous())

    def attend_stored(self, layer: int, q: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        out = torch.empty_like(q) if out is None else out  # given one, FlashInfer does not fill one with zeros first
        single, cache = self._num_single, (self.pool.k[layer], self.pool.v[layer])
        if single and self._narrow is not None:
            self._narrow.attend(layer, q[:single], self._in_use, self._prepared, out[:single])
        elif single:
            self._decode.run(q[:single], cache, out=out[:single])
        if single < len(q):
            self._prefill.run(q[single:], cache, out=out[single:])
        return out.flatten(1)

    def halves(self, parts: Sequence[Part]) -> list[Half]:
        narrow, pool, workspace = self._narrow, self.pool, self.workspace
        splits_all = pool.is_narrow or not is_hopper(pool)
        most = max((part.tokens for part in parts), default=0) if splits_all else SPLIT_TOKENS
        split = [(part.tokens, len(part.device.last)) for part in parts if not part.is_decode and part.tokens <= most]
        heads = self.num_heads, pool.num_kv_heads, pool.k.shape[-1]
        shared = [len(part.device.last) for part in parts if part.is_decode and part.is_shared]
        needed = max(split_bytes(split, *heads), *(shared_bytes(requests, *heads) for requests in shared), 0)
        if needed > workspace.numel():
            workspace = torch.zeros(needed, dtype=torch.uint8, device=pool.k.device)
        return [
            NarrowHalf(narrow, part)
            if narrow is not None and part.is_decode
            else FlashInferHalf(library(), workspace, pool, self.num_heads, part)
            for part in parts
        ]

    def freeze(self, shapes: Sequence[Shape], most_pages: int, own: Sequence[int]) -> list[CapturedAttention]:
        return freeze(self, self, shapes, most_pages, own)


def is_hopper(pool: KVPool) -> bool:
    return torch.cuda.get_device_capability(pool.k.device)[0] == HOPPER


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
