"""Rotary positions (RoFormer, arXiv:2104.09864), in the half-split layout of Hugging Face checkpoints.

The tables are made once. Sine carries the sign of the rotation, so that applying it is three operations:
x * cos + roll(x, half) * (-sin | +sin).
"""

from __future__ import annotations

import torch


class Rotary:
    """Tables of [context, head_dim]."""

    def __init__(
        self,
        frequencies: torch.Tensor,
        context_length: int,
        dtype: torch.dtype,
        device: str,
        attention_factor: float = 1.0,
    ) -> None:
        """`frequencies`: radians per position for each pair of dimensions, float32 [head_dim / 2].

        `attention_factor` scales what is rotated, so the scores of attention by its square.
        """
        self.half = len(frequencies)
        angles = torch.outer(torch.arange(context_length, dtype=torch.float32), frequencies)
        cos, sin = angles.cos() * attention_factor, angles.sin() * attention_factor
        self._cos = torch.cat((cos, cos), dim=-1).to(device, dtype)
        self._sin = torch.cat((-sin, sin), dim=-1).to(device, dtype)

    @property
    def tables(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and signed sine of all positions."""
        return self._cos, self._sin

    def at(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and signed sine [tokens, 1, head_dim] of int64 positions: once per step, for all layers."""
        return self._cos.index_select(0, positions).unsqueeze(1), self._sin.index_select(0, positions).unsqueeze(1)

    def apply(self, x: torch.Tensor, at: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Rotate heads [tokens, heads, head_dim]."""
        cos, sin = at
        return torch.addcmul(x * cos, torch.roll(x, self.half, -1), sin)
