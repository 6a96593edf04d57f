"""Two and four ranks that share a model give its logits: heads, widths, experts and the vocabulary are divided right.

Ranks are threads here, so that each family costs a moment; `scheduler/test_process.py` has real processes.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch

from minisgl.args import LaunchArgs
from minisgl.distributed.group import Group
from minisgl.engine.batch import Batch, Sampling
from minisgl.engine.engine import Engine
from minisgl.scheduler.driver import build_engine
from support.checkpoints import FAMILIES, oracle_logits
from support.collectives import Threads

pytestmark = pytest.mark.cpu

PROMPT = np.random.default_rng(4).integers(0, 96, 19).tolist()


def batch(tokens: list[int], start: int) -> Batch:
    return Batch(
        rows=np.zeros(1, np.int32),
        tokens=np.array(tokens, np.int32),
        starts=np.array([start], np.int32),
        counts=np.array([len(tokens)], np.int32),
        pages=np.arange(5, dtype=np.int32)[None],
        sampled=np.zeros(1, np.int32),
        scrub=np.empty(0, np.int32),
        sampling=Sampling.greedy(1),
    )


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [2, 4])
def test_ranks_together_give_the_logits_of_transformers(
    name: str, size: int, checkpoint: Callable[[str], tuple[Path, Any]]
) -> None:
    folder, oracle = checkpoint(name)
    args = LaunchArgs(model_path=str(folder), device="cpu", page_size=4, num_pages=8, tensor_parallel_size=size)
    table, barrier = [torch.empty(0)] * size, Barrier(size)

    def run(rank: int) -> tuple[Engine, list[torch.Tensor | None]]:
        engine = build_engine(args, Group(rank, size, Threads(rank, table, barrier)))
        return engine, [engine.logits(batch(PROMPT[:18], 0)), engine.logits(batch(PROMPT[18:], 18))]

    with ThreadPoolExecutor(size) as pool:
        done = list(pool.map(run, range(size)))
    assert all(scores == [None, None] for _, scores in done[1:])
    wanted = oracle_logits(oracle, PROMPT)
    for ours, row in zip(done[0][1], wanted[-2:], strict=True):
        assert ours is not None
        torch.testing.assert_close(ours[0], row, atol=1e-4, rtol=0)
    alone = build_engine(args.model_copy(update={"tensor_parallel_size": 1}))
    shares = [engine.weight_bytes for engine, _ in done]
    assert max(shares) < alone.weight_bytes * (0.75 if size == 2 else 0.6)
