"""The frequencies of rotary positions: plain, and the scalings that stretch them over a longer context."""

from __future__ import annotations

import math

import torch

from minisgl.models.config import RopeConfig


def frequencies(rope: RopeConfig, head_dim: int) -> torch.Tensor:
    """Radians per position for each pair of dimensions, float32 [head_dim / 2].

    llama3 (Meta's Llama 3.1 reference code): long waves are stretched by `factor`, short ones are kept, and between
    the two limits the share of each moves linearly.
    """
    plain = 1.0 / rope.theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if rope.kind == "default":
        return plain
    turns = rope.original_context * plain / (2 * math.pi)  # in the original context
    low, high = rope.low_freq_factor, rope.high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return kept * plain + (1 - kept) * plain / rope.factor
