"""The frequencies of rotary positions: plain, and the scalings that stretch them over a longer context.

Computed in float32 in the order of the reference implementations: at position 100,000 a last bit is a visible angle.
"""

from __future__ import annotations

import math

import torch

from minisgl.plan.rope import Llama3Rope, RopeConfig, YarnRope


def frequencies(rope: RopeConfig, head_dim: int) -> torch.Tensor:
    """Radians per position for each pair of dimensions, float32 [head_dim / 2]."""
    period = rope.theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)  # in radians
    plain = 1.0 / period
    if isinstance(rope, Llama3Rope):
        stretched, share = plain / rope.factor, _llama3_share(rope, plain)
    elif isinstance(rope, YarnRope):
        stretched, share = 1.0 / (rope.factor * period), _yarn_share(rope, head_dim)
    else:
        return plain
    return share * stretched + (1 - share) * plain


def _llama3_share(rope: Llama3Rope, plain: torch.Tensor) -> torch.Tensor:
    """How much of each pair is stretched: linear in its number of turns (Meta's Llama 3.1 reference code)."""
    turns = rope.original_context * plain / (2 * math.pi)
    low, high = rope.low_freq_factor, rope.high_freq_factor
    return 1 - ((turns - low) / (high - low)).clamp(0, 1)


def _yarn_share(rope: YarnRope, head_dim: int) -> torch.Tensor:
    """How much of each pair is stretched: linear in its index (YaRN's reference code)."""

    def index(turns: float) -> float:
        """The pair that makes so many turns in the original context."""
        return head_dim * math.log(rope.original_context / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = index(rope.beta_fast), index(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001  # a step instead of a ramp
    return ((torch.arange(head_dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
