"""From what past on a token takes twice as long, by the shapes of models."""

from dataclasses import replace

import pytest

from minisgl.args import LaunchArgs
from minisgl.plan.config import EngineConfig
from minisgl.plan.model import ExpertsConfig, ModelConfig
from minisgl.plan.pace import even_past
from minisgl.plan.weights import weight_bytes
from support.shapes import SMALL

QWEN3 = replace(SMALL, num_kv_heads=8, head_dim=128, experts=None)
SMALLEST = replace(QWEN3, hidden_size=1024, num_heads=16, intermediate_size=3072)
LARGE = replace(QWEN3, hidden_size=5120, num_heads=40, intermediate_size=17408)


@pytest.mark.parametrize(("model", "past"), [(SMALLEST, 7680), (LARGE, 64512)], ids=["0.6b", "14b"])
def test_a_wide_model_minds_a_long_past_later(model: ModelConfig, past: int) -> None:
    assert even_past(model) == past


@pytest.mark.parametrize("model", [SMALL, SMALLEST, LARGE], ids=["small", "0.6b", "14b"])
def test_it_is_a_layers_weights_for_each_number_that_heads_attend_with(model: ModelConfig) -> None:
    def numbers(layers: int) -> int:
        args = LaunchArgs(model_path="m", dtype="float32")
        return weight_bytes(EngineConfig.resolve(args, replace(model, num_layers=layers), "cpu")) // 4

    layer = numbers(2) - numbers(1)
    assert even_past(model) == pytest.approx(layer / (model.num_heads * model.head_dim), rel=0.01)


def test_of_experts_those_count_that_a_token_is_sent_to() -> None:
    some = ExpertsConfig(num=64, per_token=3, width=1024, normalised=True, layers=frozenset({0}))
    assert even_past(replace(SMALLEST, experts=some)) == even_past(SMALLEST)
