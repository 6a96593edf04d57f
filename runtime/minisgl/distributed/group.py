"""The tensor-parallel ranks as one object: sums, gathers, agreement. One rank needs no torch.distributed at all.

Ranks meet over a file in the server's private folder, never over a port.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch

from minisgl.device import check_devices, num_devices
from minisgl.distributed.base import Collectives, Reduction
from minisgl.distributed.loopback import closing_listeners, stay_on_loopback
from minisgl.distributed.nccl import Nccl
from minisgl.distributed.torch import TorchCollectives
from minisgl.errors import StartError
from minisgl.termination import Reason

TIMEOUT_SECONDS = 120.0  # a rank that is that late is dead or stopped; the supervisor is faster


class Group:
    """Collectives over all ranks, called by all of them in the same order."""

    def __init__(self, rank: int = 0, size: int = 1, collectives: Collectives | None = None) -> None:
        self.rank, self.size = rank, size
        self._collectives = collectives  # None: alone

    @classmethod
    def join(cls, rank: int, size: int, device: str, folder: Path, *, own_nccl: bool = True) -> Group:
        """Meet the other ranks in `folder`; returns when all are there and can talk. StartError says what failed.

        Makes the GPU number `rank` this process's own. `own_nccl`: call NCCL directly, not through torch.distributed.
        """
        check_devices(device, size, num_devices(device))
        if size == 1:
            return cls()
        backend = "nccl" if device == "cuda" else "gloo"
        try:
            if device == "cuda":
                torch.cuda.set_device(rank)
            stay_on_loopback()
            with closing_listeners() if backend == "gloo" else nullcontext():  # NCCL may connect later
                collectives: Collectives = (
                    Nccl(rank, size, folder, TIMEOUT_SECONDS)
                    if device == "cuda" and own_nccl
                    else TorchCollectives(backend, rank, size, folder, TIMEOUT_SECONDS)
                )
            group = cls(rank, size, collectives)
            group.minimum(0, device)  # NCCL connects at its first collective: better here than in the first step
        except (RuntimeError, ValueError, OSError) as error:
            raise StartError(Reason.START_FAILED, trouble(backend, rank, size, error)) from error
        return group

    def leave(self) -> None:
        """The end of the group in a process that lives on."""
        if self._collectives is not None:
            self._collectives.close()

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        """Add `x` over the ranks, in place, and return it."""
        if self._collectives is not None:
            self._collectives.all_reduce(x, Reduction.SUM)
        return x

    def concat_on_first(self, x: torch.Tensor) -> torch.Tensor | None:
        """Join the ranks' `x` along its last dimension on rank 0; None on the others."""
        if self._collectives is None:
            return x
        parts = self._collectives.gather(x)
        return None if parts is None else torch.cat(parts, dim=-1)

    def from_first(self, x: torch.Tensor) -> torch.Tensor:
        """Rank 0's `x` on all ranks, in place."""
        if self._collectives is not None:
            self._collectives.broadcast(x)
        return x

    def minimum(self, value: int, device: str) -> int:
        """The smallest of the ranks' numbers; also a point that no rank passes before all have reached it."""
        if self._collectives is None:
            return value
        tensor = torch.tensor([value], dtype=torch.int64, device=device)
        self._collectives.all_reduce(tensor, Reduction.MIN)
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
