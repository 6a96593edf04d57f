"""FlashInfer for CUDA graphs: steps of a fixed shape, with buffers that never move.

All shapes share their memory, since only one is in use at a time:

    words   [ slots | queries | bounds | last | indices ....... )     what kernels read of a step: one copy brings it
    plan    how FlashInfer shares the work among processors: it brings that itself, from pinned memory
    out     what attention gives; padding reads what an earlier step left there

Pinned memory comes in twos: a step's copies may wait on the device while the next step is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from minisgl.attention import geometry
from minisgl.attention.base import AttentionBackend
from minisgl.attention.narrow import NarrowDecode
from minisgl.kvcache.pool import KVPool

PLAN_BYTES = 8 * 2**20  # FlashInfer's own choice
ALIGNED = 4  # words: 16 bytes
BLOCKS_PER_PROCESSOR = 2  # FlashInfer splits requests until there are so many


class _Views(NamedTuple):
    """Of a step's words. `slots` int64 [tokens], the rest int32."""

    slots: Any
    queries: Any  # where each request's tokens begin, and the end
    bounds: Any  # the same for its pages in `indices`
    last: Any  # tokens in each request's last page
    indices: Any


class Layout(NamedTuple):
    """A shape's lengths."""

    tokens: int
    requests: int
    most_pages: int  # per request

    @property
    def lengths(self) -> tuple[int, ...]:
        counts = self.requests + 1, self.requests + 1, self.requests, self.requests * self.most_pages
        return 2 * self.tokens, *counts

    @property
    def num_words(self) -> int:
        return sum(-(-length // ALIGNED) * ALIGNED for length in self.lengths)

    def cut(self, words: torch.Tensor) -> _Views:
        parts, at = [], 0
        for length in self.lengths:
            parts.append(words[at : at + length])
            at += -(-length // ALIGNED) * ALIGNED
        return _Views(parts[0].view(torch.int64), *parts[1:])


class Room:
    """The memory that all shapes share."""

    def __init__(self, pool: KVPool, num_heads: int, layouts: Sequence[Layout]) -> None:
        device, most_words = pool.k.device, max(layout.num_words for layout in layouts)
        most_tokens = max(layout.tokens for layout in layouts)
        self.words = torch.zeros(most_words, dtype=torch.int32, device=device)
        self.plan = torch.empty(PLAN_BYTES, dtype=torch.uint8, device=device)
        self.out = torch.zeros(most_tokens, num_heads, pool.k.shape[-1], dtype=pool.dtype, device=device)
        self.places = [_Place(most_words) for _ in range(2)]
        self._turn = 0

    def take(self) -> int:
        """The place that may be written now."""
        self._turn = 1 - self._turn
        self.places[self._turn].copied.synchronize()
        return self._turn


def _processors(pool: KVPool) -> int:
    return int(torch.cuda.get_device_properties(pool.k.device).multi_processor_count)


def is_hopper(pool: KVPool) -> bool:
    return torch.cuda.get_device_capability(pool.k.device)[0] == 9


class _Place:
    def __init__(self, most_words: int) -> None:
        self.words = torch.zeros(most_words, dtype=torch.int32, pin_memory=True)
        self.plan = torch.empty(PLAN_BYTES, dtype=torch.uint8, pin_memory=True)
        self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]


class FrozenAttention(AttentionBackend):
    """Steps of at most a layout's tokens and requests.

    A padded request has one token in the empty page, and a query of its own only in decode steps; what else is padded
    is stored there and attended by nobody.
    """

    slots: torch.Tensor

    def __init__(
        self,
        library: Any,
        workspace: torch.Tensor,
        narrow: NarrowDecode | None,
        pool: KVPool,
        num_heads: int,
        layout: Layout,
        room: Room,
    ) -> None:
        super().__init__(pool, num_heads)
        self.layout, self._room = layout, room
        self._device = layout.cut(room.words)
        self._hosts = [layout.cut(place.words) for place in room.places]
        self._arrays = [_Views(*(part.numpy() for part in host)) for host in self._hosts]
        self._lengths = torch.ones(layout.requests, dtype=torch.int32)
        self.slots, self._out = self._device.slots, room.out[: layout.tokens]
        self._is_decode = layout.tokens == layout.requests
        # As many requests as fill the device are not split.
        blocks = layout.requests * pool.num_kv_heads
        self._is_whole = self._is_decode and blocks > BLOCKS_PER_PROCESSOR * _processors(pool)
        self._narrow = narrow if self._is_decode else None
        if self._narrow is not None:  # it needs no plan
            return
        self._wrapper = library.BatchPrefillWithPagedKVCacheWrapper(
            workspace,
            "NHD",
            use_cuda_graph=True,
            qo_indptr_buf=self._device.queries,
            paged_kv_indptr_buf=self._device.bounds,
            paged_kv_indices_buf=self._device.indices,
            paged_kv_last_page_len_buf=self._device.last,
            backend="fa2" if self._is_decode else "auto",
        )
        self._wrapper._int_workspace_buffer = room.plan
        self._plan_fully()

    def begin(self, starts: NDArray[np.int32], counts: NDArray[np.int32], pages: NDArray[np.int32]) -> None:
        pool, page_size, real, total = self.pool, self.pool.page_size, len(starts), int(counts.sum())
        turn = self._room.take()
        host, lengths = self._arrays[turn], self._lengths.numpy()
        lengths[:real], lengths[real:] = starts + counts, 1
        indices, bounds = geometry.page_list(lengths[:real], pages, page_size)
        known = len(indices)
        host.bounds[: real + 1] = bounds
        host.bounds[real + 1 :] = known + np.arange(1, self.layout.requests - real + 1)
        used = int(host.bounds[-1])
        host.indices[:known], host.indices[known:used] = indices, pool.empty_page
        host.last[:] = geometry.last_page_len(lengths, page_size)
        host.queries[: real + 1] = geometry.bounds(counts)
        host.queries[real + 1 :] = total
        if self._is_decode:
            host.queries[real + 1 :] += np.arange(1, self.layout.requests - real + 1, dtype=np.int32)
        host.slots[:total] = geometry.slots(starts, counts, pages, page_size)
        host.slots[total:] = pool.empty_page * page_size

        place, words = self._room.places[turn], self.layout.num_words - len(host.indices) + used
        self._room.words[:words].copy_(place.words[:words], non_blocking=True)
        if self._narrow is None:
            self._plan(self._hosts[turn], place.plan)
        place.copied.record()

    def _plan(self, host: _Views, pinned: torch.Tensor) -> None:
        """What the wrapper's `plan` ends in. Before that it looks at every request in Python: 1 ms for 256."""
        wrapper, pool, layout = self._wrapper, self.pool, self.layout
        arguments = [
            *(wrapper._float_workspace_buffer, wrapper._int_workspace_buffer, pinned),
            *(host.queries, host.bounds, self._lengths, layout.tokens, layout.requests),
            *(self.num_heads, pool.num_kv_heads, pool.page_size, True, pool.k.shape[-1], pool.k.shape[-1]),
            *(not self._is_decode, -1),  # causal; no window
        ]
        if wrapper._backend == "fa2":
            # In a graph, a split costs a second kernel that puts the parts together, also where there is one part.
            # 1 token for each request: without this promise, unsplit padding would read what no plan has written.
            arguments += [-1, self._is_whole, 0, int(self._is_decode)]
        wrapper._plan_info = wrapper._cached_module.plan(*arguments)

    def _plan_fully(self) -> None:
        """Once: the wrapper chooses its kernel, and learns how many rows the graph has."""
        pool, layout = self.pool, self.layout
        bounds = np.arange(layout.requests + 1, dtype=np.int32)
        queries = bounds if self._is_decode else np.minimum(bounds, 1) * np.int32(layout.tokens)
        self._wrapper.plan(
            torch.from_numpy(queries),
            torch.from_numpy(bounds),
            torch.full((layout.requests,), pool.empty_page, dtype=torch.int32, device=pool.k.device),
            torch.full((layout.requests,), pool.page_size, dtype=torch.int32),
            self.num_heads,
            pool.num_kv_heads,
            pool.k.shape[-1],
            pool.page_size,
            causal=not self._is_decode,
            q_data_type=pool.dtype,
            kv_data_type=pool.k.dtype,
        )

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        self.pool.store(layer, self.slots, k.flatten(1), v.flatten(1))
        return self.attend_stored(layer, q.contiguous())

    def attend_stored(self, layer: int, q: torch.Tensor) -> torch.Tensor:
        cache, device = (self.pool.k[layer], self.pool.v[layer]), self._device
        if self._narrow is not None:
            paged = device.indices, device.bounds, device.last
            if layer == 0:  # in the graph, since it reads what each step brings
                self._prepared = self._narrow.prepare(paged, self.layout.most_pages)
            self._narrow.attend(layer, q, paged, self._prepared, self._out)
        else:
            self._wrapper.run(q, cache, out=self._out)
        return self._out.flatten(1)
