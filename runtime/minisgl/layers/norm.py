"""Root-mean-square normalisation, whole on every rank."""

from __future__ import annotations

import torch
from torch.nn import functional

from minisgl.layers.weight import Place, Slot, Weighted


class Norm(Weighted):
    """x / rms(x) * weight over the last dimension."""

    def __init__(self, name: str, size: int, eps: float, place: Place) -> None:
        self.weight = place.empty(size)
        self.eps, self.shape = eps, [size]
        self.slots = [Slot(f"{name}.weight", self.weight)]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, self.shape, self.weight, self.eps)
