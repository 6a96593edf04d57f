"""The forward step of one rank: a decided batch in, sampled tokens out. Every rank runs the same batches in order.

Knows no requests and decides nothing; pages and rows are numbers to it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from minisgl.attention.torch import TorchAttention
from minisgl.device import available_memory
from minisgl.distributed.group import Group
from minisgl.engine.batch import Batch
from minisgl.engine.config import EngineConfig
from minisgl.engine.memory import CacheSize, size_cache
from minisgl.engine.sampler import Sampled, sample
from minisgl.info import CacheFacts, EngineFacts
from minisgl.kvcache.pool import KVPool
from minisgl.models import weights
from minisgl.models.decoder import Decoder

Phase = Callable[[str, int | None, int | None], None]  # name of a start phase, bytes done, bytes in all


class Engine:
    """Model, weights and KV cache of one rank. `context_length` is the config's, or less where the cache is small."""

    def __init__(
        self,
        config: EngineConfig,
        folder: Path,
        group: Group | None = None,
        phase: Phase = lambda name, done, total: None,
    ) -> None:
        self.config = config
        self.group = group = group or Group()
        dtype = getattr(torch, config.dtype)
        # All ranks look before any loads; ranks on CPUs share the machine's memory.
        free = group.minimum(_free_memory(config) // (group.size if config.device == "cpu" else 1), config.device)

        with torch.inference_mode():
            phase("weights", 0, None)
            self.model = Decoder(config.model, config.context_length, group, dtype, config.device)
            if config.dummy_weights:
                self.weight_bytes = weights.fill_randomly(self.model.slots())
            else:
                self.weight_bytes = weights.load(
                    self.model.slots(), folder, lambda done, total: phase("weights", done, total)
                )
            self.weight_bytes += self.model.loaded()
            phase("kv-cache", None, None)
            size = size_cache(config, free, self.weight_bytes)
            self.cache_size = CacheSize(group.minimum(size.pages, config.device), size.limited_by)
            self.context_length = min(config.context_length, self.cache_size.pages * config.page_size)
            self.pool = KVPool(
                num_layers=config.model.num_layers,
                num_pages=self.cache_size.pages,
                page_size=config.page_size,
                num_kv_heads=self.model.num_kv_heads,
                head_dim=config.model.head_dim,
                dtype=dtype,
                device=config.device,
            )
            self.attention = TorchAttention(self.pool, self.model.num_heads)

    def step(self, batch: Batch) -> Sampled | None:
        """Compute a batch; the new tokens on rank 0, None on the others."""
        with torch.inference_mode():
            logits = self._logits(batch)
            if self.group.rank:
                return None
            if logits is None:
                return Sampled(np.empty(0, np.int32), np.empty(0, np.bool_))
            return sample(logits, batch)

    def logits(self, batch: Batch) -> torch.Tensor | None:
        """The scores [sampled, vocab] behind `step`, for comparison with another implementation."""
        with torch.inference_mode():
            return self._logits(batch)

    def warm_up(self) -> None:
        """Run a prefill and a decode step through page 0, before any request owns it. All ranks together."""
        for start, count in ((0, min(4, self.context_length)), (0, 1)):
            self.step(
                Batch(
                    tokens=np.zeros(count, np.int32),
                    starts=np.array([start], np.int32),
                    counts=np.array([count], np.int32),
                    pages=np.arange(-(-count // self.config.page_size), dtype=np.int32)[None],
                    sampled=np.zeros(1, np.int32),
                    temperature=np.zeros(1, np.float32),
                    top_k=np.zeros(1, np.int32),
                    top_p=np.ones(1, np.float32),
                    min_p=np.zeros(1, np.float32),
                    seeds=np.zeros(1, np.uint64),
                    scrub=np.empty(0, np.int32),
                )
            )

    def facts(self) -> EngineFacts:
        config, pages = self.config, self.cache_size.pages
        return EngineFacts(
            architecture=config.model.architecture,
            device=config.device,
            dtype=config.dtype,
            attention_backend=config.attention_backend,
            tensor_parallel_size=config.tensor_parallel_size,
            context_length=self.context_length,
            max_running_requests=min(config.max_running_requests, config.max_step_tokens),
            cache_type=config.cache_type,
            weight_bytes=self.weight_bytes,
            kv_cache=CacheFacts(
                pages=pages,
                page_size=config.page_size,
                tokens=pages * config.page_size,
                bytes=self.pool.num_bytes,
                limited_by=self.cache_size.limited_by,
            ),
        )

    def _logits(self, batch: Batch) -> torch.Tensor | None:
        device = self.config.device
        ends = np.cumsum(batch.counts)
        first = np.repeat(batch.starts - (ends - batch.counts), batch.counts)
        positions = torch.from_numpy(first.astype(np.int64) + np.arange(len(first))).to(device)
        tokens = torch.from_numpy(batch.tokens.astype(np.int64)).to(device)
        wanted = torch.from_numpy(ends[batch.sampled].astype(np.int64) - 1).to(device)
        if len(batch.scrub):
            self.pool.scrub(torch.from_numpy(batch.scrub.astype(np.int64)).to(device))
        self.attention.begin(batch.starts, batch.counts, batch.pages)
        return self.model.forward(tokens, positions, wanted, self.attention)


def _free_memory(config: EngineConfig) -> int:
    return available_memory() if config.device == "cpu" else int(torch.cuda.mem_get_info()[0])
