"""What was planned of an engine's memory, beside what the engine finds: equal within 3%, and here to the byte."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch

from minisgl.args import LaunchArgs
from minisgl.distributed.group import Group
from minisgl.engine import engine as engine_module
from minisgl.engine.engine import Engine
from minisgl.errors import StartError
from minisgl.info import Figure, MemoryFacts
from minisgl.scheduler.driver import Driver, build_engine
from minisgl.termination import Reason
from support.checkpoints import FAMILIES
from support.collectives import Threads

pytestmark = pytest.mark.cpu

MakeDriver = Callable[..., Driver]
Checkpoint = Callable[[str], tuple[Path, Any]]


def facts(engine: Engine) -> MemoryFacts:
    told = engine.facts().memory
    assert told is not None
    return told


def is_near(figure: Figure) -> bool:
    assert figure.real is not None
    return abs(figure.planned - figure.real) <= 0.03 * figure.real


@pytest.mark.parametrize("family", [*FAMILIES, "llama+tied", "qwen3_moe+tied"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_engine_on_a_cpu_takes_what_was_planned(family: str, dtype: str, driver: MakeDriver) -> None:
    told = facts(driver(family, dtype=dtype).engine)
    for figure in (told.weight_bytes, told.kv_bytes_per_token, told.cache_tokens):
        assert is_near(figure), told
    assert told.kv_bytes_per_token.planned == told.kv_bytes_per_token.real


@pytest.mark.parametrize("family", FAMILIES)
def test_each_of_two_ranks_takes_what_was_planned(family: str, checkpoint: Checkpoint) -> None:
    args = LaunchArgs(model_path=str(checkpoint(family)[0]), device="cpu", num_tokens=64, tensor_parallel_size=2)
    table, barrier = [torch.empty(0)] * 2, Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        engines = list(pool.map(lambda rank: build_engine(args, Group(rank, 2, Threads(rank, table, barrier))), (0, 1)))
    told = facts(engines[0])
    assert is_near(told.weight_bytes), told
    assert is_near(told.kv_bytes_per_token), told


def test_a_cache_that_memory_limits_is_planned(driver: MakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "available_memory", lambda: 150 * 2**20)
    told = facts(driver(num_pages=None).engine)
    assert told.free_bytes == 150 * 2**20
    assert is_near(told.cache_tokens), told
    assert (told.cache_tokens.real or 0) < 256 * 256, "less than all requests at their longest: memory decided"


def test_what_cannot_fit_is_refused_before_a_weight_is_read(
    driver: MakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*_: Any) -> int:
        raise AssertionError("weights were read")

    monkeypatch.setattr(engine_module, "available_memory", lambda: 100 * 2**20)
    monkeypatch.setattr("minisgl.models.weights.load", too_late)
    with pytest.raises(StartError, match="leaves 0 MiB for the KV cache") as caught:
        driver(num_pages=None)
    assert caught.value.reason is Reason.OUT_OF_MEMORY


def test_what_nothing_measures_is_not_told(driver: MakeDriver) -> None:
    told = facts(driver().engine)
    assert (told.activation_bytes.real, told.graph_bytes.real) == (None, None)
    assert told.activation_bytes.planned > 0
