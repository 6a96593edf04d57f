"""The gated MLP, its width divided over ranks."""

from __future__ import annotations

import torch
from torch.nn import functional

from minisgl.layers.linear import ColumnLinear, Part, RowLinear
from minisgl.layers.weight import Place, Weighted


class MLP:
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, name: str, hidden_size: int, width: int, *, bias: bool, place: Place) -> None:
        """`width`: over all ranks."""
        mine = width // place.group.size
        parts = [Part(f"{name}.{which}_proj", mine, place.group.rank * mine) for which in ("gate", "up")]
        self.gate_up = ColumnLinear(parts, hidden_size, bias=bias, place=place)
        self.down = RowLinear(f"{name}.down_proj", mine, hidden_size, bias=bias, place=place)
        self.parts: list[Weighted] = [self.gate_up, self.down]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(functional.silu(gate).mul_(up))
