"""Matrix products, sharded over ranks: by output column (no communication), or by input row (one sum).

Several checkpoint tensors become one weight (q, k and v; gate and up), so that a step has few, large products.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from minisgl.layers.weight import Matrix, Place, Slot, Weighted


class Part(NamedTuple):
    """A checkpoint tensor's share of a fused weight: `rows` outputs on this rank, from output `start` on."""

    name: str
    rows: int
    start: int


class ColumnLinear(Weighted):
    """y = x W^T (+ b), every rank with its own outputs; `parts` stand one below the other in W."""

    def __init__(self, parts: list[Part], in_size: int, *, bias: bool, place: Place) -> None:
        rows = [part.rows for part in parts]
        self.matrix = Matrix(place.empty(sum(rows), in_size))
        self.bias = place.empty(sum(rows)) if bias else None
        self.slots = [
            Slot(f"{part.name}.weight", target, 0, part.start)
            for part, target in zip(parts, torch.split(self.matrix.weight, rows), strict=True)
        ]
        if self.bias is not None:
            self.slots += [
                Slot(f"{part.name}.bias", target, 0, part.start)
                for part, target in zip(parts, torch.split(self.bias, rows), strict=True)
            ]

    def loaded(self) -> int:
        return super().loaded() + self.matrix.pack()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.matrix(x, self.bias)


class RowLinear(Weighted):
    """y = sum over ranks of x_r W_r^T (+ b): takes what a ColumnLinear left on each rank."""

    def __init__(self, name: str, in_size: int, out_size: int, *, bias: bool, place: Place) -> None:
        """`in_size`: on this rank."""
        self.group = place.group
        self.matrix = Matrix(place.empty(out_size, in_size))
        self.slots = [Slot(f"{name}.weight", self.matrix.weight, 1, place.group.rank * in_size)]
        self.bias = place.empty(out_size) if bias else None
        if self.bias is not None:
            self.slots.append(Slot(f"{name}.bias", self.bias))

    def loaded(self) -> int:
        return super().loaded() + self.matrix.pack()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.group.size == 1:
            return self.matrix(x, self.bias)
        y = self.group.sum(self.matrix(x))
        return y if self.bias is None else y + self.bias
