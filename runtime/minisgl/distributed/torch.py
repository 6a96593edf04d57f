"""torch.distributed: gloo between CPUs; NCCL between GPUs where our own binding is not wanted."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from minisgl.distributed.base import Reduction

OPERATIONS = {Reduction.SUM: dist.ReduceOp.SUM, Reduction.MIN: dist.ReduceOp.MIN}


class TorchCollectives:
    """The default process group of this process. The ranks meet over a file: `tcp://` would listen on every address."""

    def __init__(self, backend: str, rank: int, size: int, folder: Path, timeout_seconds: float) -> None:
        self.rank, self.size = rank, size
        dist.init_process_group(
            backend,
            init_method=f"file://{(folder / 'rendezvous').absolute()}",
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=timeout_seconds),
        )

    def all_reduce(self, x: torch.Tensor, reduction: Reduction) -> None:
        dist.all_reduce(x, OPERATIONS[reduction])

    def gather(self, x: torch.Tensor) -> list[torch.Tensor] | None:
        parts = [torch.empty_like(x) for _ in range(self.size)] if self.rank == 0 else None
        dist.gather(x, parts, dst=0)
        return parts

    def broadcast(self, x: torch.Tensor) -> None:
        dist.broadcast(x, src=0)

    def close(self) -> None:
        dist.destroy_process_group()
