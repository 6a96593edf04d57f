"""Tensor-parallel ranks over gloo, as processes: they replay what rank 0 decided, bit for bit, and answer as one."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.checkpoints import oracle_greedy

pytestmark = pytest.mark.cpu

PROMPTS = [[5, 6, 7], list(range(20)), [9] * 11, list(range(40, 70))]


def run_ranks(size: int, folder: Path, overlap: str) -> list[dict[str, Any]]:
    """What each rank says at its end: digests of the steps it computed, and rank 0 the answers."""
    with tempfile.TemporaryDirectory() as ipc:
        command = [
            sys.executable,
            "-m",
            "support.rank",
            str(folder),
            ipc,
            str(size),
            overlap,
            json.dumps(PROMPTS),
            "cpu",
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
        ranks = [
            subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, env=environment) for rank in range(size)
        ]
        outputs = [rank.communicate(timeout=120)[0] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0] * size
    return [json.loads(output) for output in outputs]


@pytest.mark.parametrize(("size", "overlap"), [(2, "off"), (2, "on"), (4, "on")])
def test_all_ranks_compute_the_same_steps_and_answer_as_one_model(
    size: int, overlap: str, checkpoint: Callable[[str], tuple[Path, Any]]
) -> None:
    folder, oracle = checkpoint("qwen3")
    first, *others = run_ranks(size, folder, overlap)
    assert first["answers"] == [oracle_greedy(oracle, prompt, 12) for prompt in PROMPTS]
    assert len(first["digests"]) > 12
    for other in others:
        assert other["digests"] == first["digests"]
