"""The tensor-parallel ranks as one object: sums, gathers, agreement. One rank needs no torch.distributed at all.

Ranks meet over a file in the server's private folder, never over a port.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from minisgl.device import check_devices, num_devices
from minisgl.errors import StartError
from minisgl.termination import Reason

TIMEOUT = timedelta(seconds=120)  # a rank that is that late is dead or stopped; the supervisor is faster


class Group:
    """Collectives over all ranks, called by all of them in the same order."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def join(cls, rank: int, size: int, device: str, folder: Path) -> Group:
        """Meet the other ranks in `folder`; returns when all are there and can talk. StartError says what failed."""
        check_devices(device, size, num_devices(device))
        if size > 1:
            backend = "nccl" if device == "cuda" else "gloo"
            try:
                dist.init_process_group(
                    backend,
                    init_method=f"file://{(folder / 'rendezvous').absolute()}",
                    rank=rank,
                    world_size=size,
                    timeout=TIMEOUT,
                )
                if device == "cuda":  # NCCL connects at its first collective: better here than in the first step
                    dist.all_reduce(torch.zeros(1, device=f"cuda:{rank}"))
            except (RuntimeError, ValueError) as error:
                raise StartError(Reason.START_FAILED, trouble(backend, rank, size, error)) from error
        return cls(rank, size)

    def leave(self) -> None:
        """The end of the group in a process that lives on."""
        if self.size > 1:
            dist.destroy_process_group()

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


def trouble(backend: str, rank: int, size: int, error: Exception) -> str:
    """One line for ranks that could not meet: what failed, and what to try."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    sentence = f"rank {rank} of {size} could not join the others over {backend}: {first}"
    if backend != "nccl":
        return f"{sentence}; see the other ranks' lines above"
    return (
        f"{sentence}; set NCCL_DEBUG=INFO to see why, and try --disable-pynccl; "
        "a small /dev/shm or GPUs without peer access are the usual causes (NCCL_P2P_DISABLE=1 tells)"
    )
