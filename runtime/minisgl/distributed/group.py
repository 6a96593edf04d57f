"""The tensor-parallel ranks as one object: sums, gathers, agreement. One rank needs no torch.distributed at all.

Ranks meet over a file in the server's private folder, never over a port.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

TIMEOUT = timedelta(seconds=120)  # a rank that is that late is dead or stopped; the supervisor is faster


class Group:
    """Collectives over all ranks, called by all of them in the same order."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def join(cls, rank: int, size: int, device: str, folder: Path) -> Group:
        """Meet the other ranks in `folder`; returns when all are there."""
        if size > 1:
            dist.init_process_group(
                "nccl" if device == "cuda" else "gloo",
                init_method=f"file://{(folder / 'rendezvous').absolute()}",
                rank=rank,
                world_size=size,
                timeout=TIMEOUT,
            )
        return cls(rank, size)

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        """Add `x` over the ranks, in place, and return it."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def concat_on_first(self, x: torch.Tensor) -> torch.Tensor | None:
        """Join the ranks' `x` along its last dimension on rank 0; None on the others."""
        if self.size == 1:
            return x
        parts = [torch.empty_like(x) for _ in range(self.size)] if self.rank == 0 else None
        dist.gather(x, parts, dst=0)
        return torch.cat(parts, dim=-1) if parts else None

    def from_first(self, x: torch.Tensor) -> torch.Tensor:
        """Rank 0's `x` on all ranks, in place."""
        if self.size > 1:
            dist.broadcast(x, src=0)
        return x

    def minimum(self, value: int, device: str) -> int:
        """The smallest of the ranks' numbers; also a point that no rank passes before all have reached it."""
        if self.size == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.int64, device=device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MIN)
        return int(tensor.item())
