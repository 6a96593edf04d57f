"""What a group needs of the library that moves its tensors. Knows no ranks' roles and no models."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

import torch


class Reduction(Enum):
    """How tensors are combined over the ranks."""

    SUM = "sum"
    MIN = "min"


class Collectives(Protocol):
    """Called by all ranks in the same order, with tensors of equal shape and dtype."""

    def all_reduce(self, x: torch.Tensor, reduction: Reduction) -> None:
        """Combine `x` over the ranks, in place."""

    def gather(self, x: torch.Tensor) -> list[torch.Tensor] | None:
        """Every rank's `x` on rank 0, in order of rank; None on the others."""

    def broadcast(self, x: torch.Tensor) -> None:
        """Overwrite `x` with rank 0's."""

    def close(self) -> None:
        """Let go of the other ranks."""
