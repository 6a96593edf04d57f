"""An engine without a compiler starts only if FlashInfer's modules are there for its model and its GPU."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from minisgl.args import LaunchArgs
from minisgl.attention import prebuilt
from minisgl.attention.modules import Module
from minisgl.errors import StartError
from minisgl.plan.config import EngineConfig
from support.shapes import SMALL

ALL = ("nvcc", "a C++ compiler", "ninja")


class Machine:
    """What is found on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.missing: tuple[str, ...] = ALL
        self.built: tuple[str, ...] = ("9.0a",)
        self.modules: set[Module] = set()
        monkeypatch.setattr(prebuilt, "missing_tools", lambda: self.missing)
        monkeypatch.setattr(prebuilt, "built_for", lambda: self.built)
        monkeypatch.setattr(Module, "spec", lambda module: SimpleNamespace(is_aot=module in self.modules))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def check(head_dim: int = 128, capability: tuple[int, int] = (9, 0), **args: object) -> None:
    config = EngineConfig.resolve(LaunchArgs(model_path="m", **args), replace(SMALL, head_dim=head_dim), "cuda")
    prebuilt.check(config, capability, "NVIDIA X")


def test_with_a_compiler_nothing_is_asked(machine: Machine) -> None:
    machine.missing, machine.built = (), ()
    check()
    assert prebuilt.has(Module("fa2", "bfloat16", "bfloat16", 96))


def test_an_engine_starts_with_the_modules_that_it_asks_for(machine: Machine) -> None:
    machine.modules = {Module("fa2", "bfloat16", "bfloat16", 128), Module("fa3", "bfloat16", "bfloat16", 128)}
    check()
    with pytest.raises(StartError, match="heads of 128 in bfloat16 over a KV cache in float8_e4m3fn"):
        check(kv_cache_dtype="fp8")
    machine.modules.pop()
    with pytest.raises(StartError, match="use --attention-backend torch"):
        check()


def test_xqa_may_be_missing(machine: Machine) -> None:
    machine.modules = {Module("fa2", "bfloat16", "float8_e4m3fn", 128)}
    check(kv_cache_dtype="fp8")
    assert not prebuilt.has(Module("xqa", "bfloat16", "float8_e4m3fn", 128, 9, 16))


def test_the_missing_tools_are_named(machine: Machine) -> None:
    machine.missing = ("nvcc",)
    with pytest.raises(StartError, match=r"heads of 96 in bfloat16 .* lacks nvcc to compile one; install that"):
        check(head_dim=96)


def test_another_gpu_is_told_which_image_it_needs(machine: Machine) -> None:
    with pytest.raises(StartError, match=r"capability 9.0a, and NVIDIA X has 8.0; .*CUDA_ARCHITECTURES=8.0, or"):
        check(capability=(8, 0))
    with pytest.raises(StartError, match=r"CUDA_ARCHITECTURES=10.0a, or use --attention-backend torch"):
        check(capability=(10, 0))


def test_torch_s_attention_asks_for_nothing(machine: Machine) -> None:
    check(capability=(8, 0), attention_backend="torch")


@pytest.mark.parametrize(
    ("built", "capability", "runs"),
    [
        ("9.0a", (9, 0), True),
        ("9.0a", (10, 0), False),
        ("8.0", (8, 9), True),
        ("8.9", (8, 0), False),
        ("8.0", (9, 0), False),
        ("8.0 9.0a", (9, 0), True),
        ("10.0f", (10, 3), True),
        ("", (8, 0), True),
    ],
)
def test_where_machine_code_runs(built: str, capability: tuple[int, int], runs: bool) -> None:
    assert prebuilt.runs(built.split(), capability) is runs
