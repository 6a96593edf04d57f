"""What memory the largest step takes on a GPU, found by computing it once before the KV cache is made; and a warm-up.

A formula knows a model's activations; it does not know what libraries take for themselves, nor the copies of a sampler.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from minisgl.engine.batch import Batch, Sampling
from minisgl.plan.config import EngineConfig


def largest_step(config: EngineConfig) -> Batch:
    """As many tokens and requests as a step can have, each sampled in the way that takes most memory; all in page 0."""
    rows = config.num_rows
    return _step(config, _shared(min(config.max_step_tokens, rows * config.context_length), rows))


def mixed_step(config: EngineConfig) -> Batch:
    """One as large, half of whose requests have one token: run once at start, it loads what no captured step has."""
    rows = config.num_rows
    singles = rows // 2
    tokens = min(config.max_step_tokens - singles, (rows - singles) * config.context_length)
    return _step(config, np.concatenate([np.ones(singles, np.int32), _shared(tokens, rows - singles)]))


def _shared(tokens: int, requests: int) -> NDArray[np.int32]:
    """How many each request gets, about equally."""
    counts = np.full(requests, tokens // requests, np.int32)
    counts[: tokens % requests] += 1
    return counts


def _step(config: EngineConfig, counts: NDArray[np.int32]) -> Batch:
    rows, tokens = len(counts), int(counts.sum())
    return Batch(
        rows=np.arange(rows, dtype=np.int32),
        tokens=np.zeros(tokens, np.int32),
        starts=np.zeros(rows, np.int32),
        counts=counts,
        pages=np.zeros((rows, -(-int(counts.max()) // config.page_size)), np.int32),
        sampled=np.arange(rows, dtype=np.int32),
        scrub=np.empty(0, np.int32),
        sampling=Sampling(
            temperature=np.ones(rows, np.float32),
            top_k=np.full(rows, 20, np.int32),
            top_p=np.full(rows, 0.9, np.float32),
            min_p=np.full(rows, 0.01, np.float32),
            seeds=np.zeros(rows, np.uint64),
            positions=counts,
        ),
    )


def most_memory(run: Callable[[], None]) -> int:
    """Bytes that `run` takes at most beside what is there already, in torch's allocator and outside of it."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    reserved, free = torch.cuda.memory_reserved(), torch.cuda.mem_get_info()[0]
    run()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_reserved() - reserved
    torch.cuda.empty_cache()
    kept = free - torch.cuda.mem_get_info()[0] - (torch.cuda.memory_reserved() - reserved)
    return int(peak + max(0, kept))
