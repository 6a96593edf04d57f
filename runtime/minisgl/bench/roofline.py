"""The least time a device can need for a workload: what must be read and computed, over how fast it reads and computes.

Counted per pass: every weight is read once in each decode step, every key and value of a request once per token of its
answer; prefill is arithmetic only. Sampling, norms and all overheads are left out, so no engine can be faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minisgl.bench.workload import Workload

if TYPE_CHECKING:
    from minisgl.plan.model import ModelConfig

TRIES = 5  # the best one counts; others met a busy machine


@dataclass(frozen=True)
class Device:
    """What all ranks reach together."""

    bytes_per_second: float
    flops_per_second: float


@dataclass(frozen=True)
class Roofline:
    """Seconds of each part, and what they allow."""

    kv_seconds: float
    decode_seconds: float
    prefill_seconds: float
    output_tokens_per_second: float

    @property
    def seconds(self) -> float:
        return self.kv_seconds + self.decode_seconds + self.prefill_seconds


def roofline(model: ModelConfig, element_bytes: int, workload: Workload, device: Device) -> Roofline:
    """For a dense decoder whose weights and cache have `element_bytes` per number; all requests run together."""
    heads = model.num_heads * model.head_dim
    kv_heads = model.num_kv_heads * model.head_dim
    per_layer = model.hidden_size * (2 * heads + 2 * kv_heads + 3 * model.intermediate_size)
    linear = model.num_layers * per_layer
    weights = linear + model.vocab_size * model.hidden_size

    prompts = np.array([len(prompt) for prompt in workload.prompts], np.float64)
    outputs = np.array(workload.output_lens, np.float64)
    kv_token_bytes = 2 * model.num_layers * kv_heads * element_bytes
    kv = float((outputs * prompts + outputs * (outputs + 1) / 2).sum()) * kv_token_bytes / device.bytes_per_second

    # The first token comes from the prefill; step k computes the next one of all answers longer than k.
    batch = (outputs[None] > np.arange(1, int(outputs.max()))[:, None]).sum(1)
    reading = weights * element_bytes / device.bytes_per_second
    decode = float(np.maximum(reading, batch * 2 * weights / device.flops_per_second).sum())

    attention = 2 * heads * model.num_layers * prompts**2  # scores and values, half of the square is masked
    prefill = float((2 * linear * prompts + attention).sum()) / device.flops_per_second
    total = kv + decode + prefill
    return Roofline(kv, decode, prefill, float(outputs.sum()) / total)


def measure_device(device: str, dtype: str) -> Device:
    """Copy and multiply large arrays: what this device gives to a program that does nothing else."""
    import torch

    kind = getattr(torch, dtype)
    on_gpu = device == "cuda"
    megabytes, side = (2048, 8192) if on_gpu else (256, 1024)
    source = torch.ones(megabytes * 2**20 // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    square = torch.ones(side, side, dtype=kind, device=device)
    wait: Callable[[], Any] = torch.cuda.synchronize if on_gpu else lambda: None

    def seconds(work: Callable[[], Any]) -> float:
        best = float("inf")
        for _ in range(TRIES):
            wait()
            began = time.perf_counter()
            work()
            wait()
            best = min(best, time.perf_counter() - began)
        return best

    size = source.numel() * 4
    reading = max(2 * size / seconds(lambda: target.copy_(source)), size / seconds(source.sum))
    computing = 2 * side**3 / seconds(lambda: square @ square)
    return Device(reading, computing)
