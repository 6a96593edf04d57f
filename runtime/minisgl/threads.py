"""How many threads each process of a server computes with. Imports nothing: libraries read these settings at import.

Too many threads are the worst mistake on a CPU: two threads on two contended cores were 4 to 10 times slower than one,
because each OpenMP barrier waits for a thread that is not scheduled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

# OpenMP (torch, oneDNN), MKL, OpenBLAS (numpy), Rayon (tokenizers): each has a pool of its own.
POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


def settings_of(
    role: str, ranks: int, cores: int | None = None, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The environment that pins one child's threads.

    A scheduler computes with its share of the cores, or with what the user set; the others wait for messages, and
    more than one thread would only take a core from the engine.
    """
    threads = "1"
    if role == "scheduler":
        share = threads_per_rank(available_cores() if cores is None else cores, ranks)
        threads = environ.get("OMP_NUM_THREADS") or str(share)
    return {**dict.fromkeys(POOLS, threads), "TOKENIZERS_PARALLELISM": "false"}


def threads_per_rank(cores: int, ranks: int) -> int:
    """Divide the cores, leaving one to the other processes of the server."""
    return max(1, (cores - 1) // ranks)


def available_cores(root: Path = Path("/")) -> int:
    """Cores this process may use: its affinity, or the container's CPU quota where that is smaller."""
    cores = len(os.sched_getaffinity(0))
    try:
        limit = (root / "sys/fs/cgroup/cpu.max").read_text().split()
    except OSError:
        return cores
    match limit:
        case [quota, period] if quota.isdigit() and period.isdigit():
            return max(1, min(cores, int(quota) // int(period)))
    return cores
