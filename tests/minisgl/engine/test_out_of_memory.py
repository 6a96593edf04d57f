"""Memory that runs out, at each place where it can: the line names the argument that gives room."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from minisgl.engine.memory import is_out_of_memory, which_memory
from minisgl.errors import StartError
from minisgl.scheduler.driver import Driver
from minisgl.termination import Memory, Reason

pytestmark = pytest.mark.cpu

MakeDriver = Callable[..., Driver]
FAR_TOO_MUCH = 2**50


def torch_has_no_memory(*args: Any, **kwargs: Any) -> Any:
    return torch.empty(FAR_TOO_MUCH)


def numpy_has_no_memory(*args: Any, **kwargs: Any) -> Any:
    return np.zeros(FAR_TOO_MUCH)


@pytest.mark.parametrize("allocate", [torch_has_no_memory, numpy_has_no_memory])
def test_what_an_allocator_raises_is_known(allocate: Callable[[], Any]) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as raised:
        allocate()
    assert is_out_of_memory(raised.value)
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))


@pytest.mark.parametrize(
    ("place", "sentence", "memory"),
    [
        ("models.weights.load", "loading the weights.*--tensor-parallel-size", Memory.HOST),
        ("engine.engine.KVPool", "KV cache.*--memory-ratio.*--num-pages", Memory.CACHE),
    ],
)
@pytest.mark.parametrize("allocate", [torch_has_no_memory, numpy_has_no_memory])
def test_a_start_without_memory_names_the_way_out(
    place: str, sentence: str, memory: Memory, allocate: Any, driver: MakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"minisgl.{place}", allocate)
    with pytest.raises(StartError, match=sentence) as raised:
        driver()
    assert (raised.value.reason, raised.value.memory) == (Reason.OUT_OF_MEMORY, memory)


def test_what_a_gpu_lacks_is_told_from_what_its_host_lacks() -> None:
    assert which_memory(torch.OutOfMemoryError("CUDA out of memory"), "cuda") is Memory.DEVICE
    assert which_memory(MemoryError(), "cuda") is Memory.HOST
    assert which_memory(RuntimeError("can't allocate memory"), "cpu") is Memory.HOST


def test_another_error_stays_what_it_is(driver: MakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**kwargs: Any) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("minisgl.engine.engine.KVPool", broken)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        driver()
