"""Predicted bytes of weights against the tensors that a checkpoint fills: every family, tied and untied, over ranks."""

from pathlib import Path
from typing import Any

import pytest
import torch

from minisgl.args import LaunchArgs
from minisgl.distributed.group import Group
from minisgl.models import registry
from minisgl.plan.config import EngineConfig
from minisgl.plan.memory import SLACK_BYTES, need
from minisgl.plan.model import ModelConfig
from minisgl.plan.weights import table_bytes, weight_bytes
from support.checkpoints import CLASSES, save_tiny

pytestmark = pytest.mark.cpu

TINY = (
    "llama",
    "llama+tied",
    "llama+biased",
    "mistral",
    "qwen2+tied",
    "qwen2",
    "qwen3+yarn",
    "qwen3+tied",
    "qwen3_moe",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp("tiny") for name in TINY}
    for name, folder in made.items():
        save_tiny(folder, name)
    return made


def decide(folder: Path, device: str = "cpu", **args: Any) -> EngineConfig:
    return EngineConfig.resolve(LaunchArgs(model_path="m", **args), ModelConfig.read(folder), device)


def test_every_family_is_among_them() -> None:
    assert {name.split("+")[0] for name in TINY} == set(CLASSES)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_weights_of_a_rank_are_counted_to_the_byte(
    name: str, ranks: int, dtype: str, folders: dict[str, Path]
) -> None:
    config = decide(folders[name], "cuda", tensor_parallel_size=ranks, dtype=dtype)
    model = registry.find(config.model.architecture)(config.model, 16, Group(0, ranks), getattr(torch, dtype), "meta")
    assert weight_bytes(config) == sum(slot.target.nbytes for slot in model.slots())
    assert (model.num_kv_heads, len(model.layers)) == (config.num_kv_heads, config.model.num_layers)


def test_a_mixture_counts_only_the_layers_that_have_experts(tmp_path: Path) -> None:
    save_tiny(tmp_path, "qwen3_moe", num_hidden_layers=3, decoder_sparse_step=2)
    config = decide(tmp_path, "cuda", dtype="bfloat16")
    model = registry.find(config.model.architecture)(config.model, 16, Group(), torch.bfloat16, "meta")
    assert weight_bytes(config) == sum(slot.target.nbytes for slot in model.slots())


def test_the_tables_of_positions_are_counted_to_the_byte(folders: dict[str, Path]) -> None:
    config = decide(folders["llama"])
    model = registry.find("LlamaForCausalLM")(config.model, config.context_length, Group(), torch.float32, "cpu")
    assert table_bytes(config) == sum(table.nbytes for table in model.rotary.tables)
    assert need(config).other == table_bytes(config) + SLACK_BYTES
