"""FlashInfer for captured steps: its wrapper for graphs, planned without its look at each request in Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from minisgl.attention.base import Half, Part
from minisgl.attention.geometry import Paged
from minisgl.kernels.rows import place_rows
from minisgl.kvcache.pool import KVPool
from minisgl.plan.shapes import SPLIT_TOKENS, num_chunks

BLOCKS_PER_PROCESSOR = 2  # FlashInfer splits requests until there are so many


class FlashInferHalf(Half):
    """One part of a captured step by FlashInfer."""

    def __init__(self, library: Any, workspace: torch.Tensor, pool: KVPool, num_heads: int, part: Part) -> None:
        self.pool, self.num_heads, self.part = pool, num_heads, part
        self._requests = len(part.device.last)
        # As many requests as fill the device are not split, unless the part is made for one that is longer than all.
        processors = torch.cuda.get_device_properties(pool.k.device).multi_processor_count
        blocks = BLOCKS_PER_PROCESSOR * processors
        self.is_whole = part.is_decode and not part.is_shared and self._requests * pool.num_kv_heads > blocks
        # FlashInfer cuts requests until `blocks` are taken, padding's among them. To let it have more, it is told of
        # blocks beside its own, less than none.
        chunks = num_chunks(self._requests, pool.num_kv_heads, blocks) if part.is_decode else 0
        self._beside = min(0, blocks - chunks * pool.num_kv_heads)
        self._wrapper = library.BatchPrefillWithPagedKVCacheWrapper(
            workspace,
            "NHD",
            use_cuda_graph=True,
            qo_indptr_buf=part.device.queries,
            paged_kv_indptr_buf=part.device.bounds,
            paged_kv_indices_buf=part.device.indices,
            paged_kv_last_page_len_buf=part.device.last,
            backend="fa2" if part.is_decode or part.tokens <= SPLIT_TOKENS else "auto",
        )
        self._wrapper._int_workspace_buffer = part.plan
        self._plan_fully()
        # The kernel that splits puts the parts together from line 0 on, wherever the queries begin.
        self._is_shifted = part.begins_late and self._wrapper._backend == "fa2"

    def plan(self, host: Paged, lengths: torch.Tensor, pinned: torch.Tensor) -> None:
        """What the wrapper's `plan` ends in. Before that it looks at every request in Python: 1 ms for 256."""
        wrapper, pool, part = self._wrapper, self.pool, self.part
        dim = pool.k.shape[-1]
        queries = host.queries - host.queries[0] if self._is_shifted else host.queries
        arguments = [
            *(wrapper._float_workspace_buffer, wrapper._int_workspace_buffer, pinned),
            *(queries, host.bounds, lengths, part.tokens, self._requests),
            *(self.num_heads, pool.num_kv_heads, pool.page_size, True, dim, dim),
            *(not part.is_decode, -1),  # causal; no window
        ]
        if wrapper._backend == "fa2":
            # In a graph, a split costs a second kernel that puts the parts together, also where there is one part.
            # 1 token for each request: without this promise, unsplit padding would read what no plan has written.
            arguments += [-1, self.is_whole, 0 if self.is_whole else self._beside, int(part.is_decode)]
        wrapper._plan_info = wrapper._cached_module.plan(*arguments)

    def _plan_fully(self) -> None:
        """Once: the wrapper chooses its kernel, and learns how many rows the graph has."""
        pool, part, requests = self.pool, self.part, self._requests
        bounds = np.arange(requests + 1, dtype=np.int32)
        queries = bounds if part.is_decode else np.minimum(bounds, 1) * np.int32(part.tokens)
        self._wrapper.plan(
            torch.from_numpy(queries),
            torch.from_numpy(bounds),
            torch.full((requests,), pool.empty_page, dtype=torch.int32, device=pool.k.device),
            torch.full((requests,), pool.page_size, dtype=torch.int32),
            self.num_heads,
            pool.num_kv_heads,
            pool.k.shape[-1],
            pool.page_size,
            causal=not part.is_decode,
            q_data_type=pool.dtype,
            kv_data_type=pool.k.dtype,
        )

    def prepare(self) -> None:
        """The plan has it all."""

    def attend(self, layer: int, q: torch.Tensor, out: torch.Tensor) -> None:
        part, cache = self.part, (self.pool.k[layer], self.pool.v[layer])
        if part.is_decode:
            self._wrapper.run(q[: part.tokens], cache, out=out[: part.tokens])
        elif self._is_shifted:
            self._wrapper.run(q, cache, out=part.scratch)
            place_rows(part.scratch, out, part.device.queries, shifted=True)
        else:
            self._wrapper.run(q, cache, out=out)
