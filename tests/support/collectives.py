"""Ranks as threads of one process, for tests of what a model is when it is shared."""

from threading import Barrier

import torch

from minisgl.distributed.base import Reduction


class Threads:
    """The collectives of one rank: everyone puts a tensor on the table, looks at all, and goes on together."""

    def __init__(self, rank: int, table: list[torch.Tensor], barrier: Barrier) -> None:
        self.rank, self.table, self.barrier = rank, table, barrier

    def _all(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.table[self.rank] = x.clone()
        self.barrier.wait(60)
        seen = list(self.table)
        self.barrier.wait(60)
        return seen

    def all_reduce(self, x: torch.Tensor, reduction: Reduction) -> None:
        seen = torch.stack(self._all(x))
        x.copy_(seen.sum(0) if reduction is Reduction.SUM else seen.amin(0))

    def gather(self, x: torch.Tensor) -> list[torch.Tensor] | None:
        seen = self._all(x)
        return seen if self.rank == 0 else None

    def broadcast(self, x: torch.Tensor) -> None:
        x.copy_(self._all(x)[0])

    def close(self) -> None: ...
