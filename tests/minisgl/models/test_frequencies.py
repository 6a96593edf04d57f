"""Positions and their scalings, number by number against transformers."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from minisgl.models.frequencies import frequencies
from minisgl.plan.rope import read_rope

pytestmark = pytest.mark.cpu

ORIGINAL = {"original_max_position_embeddings": 4096, "rope_theta": 1e6}
YARN: dict[str, Any] = ORIGINAL | {"rope_type": "yarn", "factor": 4.0}


@pytest.mark.parametrize(
    "rope",
    [
        YARN,
        YARN | {"attention_factor": 1.25},
        YARN | {"attention_factor": 0.0},
        YARN | {"mscale": 0.707, "mscale_all_dim": 1.0},
        YARN | {"mscale": 0.707},  # without the other it means nothing
        YARN | {"beta_fast": 16.0, "beta_slow": 2.0},
        YARN | {"truncate": False},
        YARN | {"factor": 1.0},
        YARN | {"factor": None},
        YARN | {"original_max_position_embeddings": 128, "beta_fast": 2.0, "beta_slow": 2.0, "truncate": False},
        ORIGINAL | {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("head_dim", [64, 128])
def test_frequencies_and_attention_factor_are_those_of_transformers(rope: dict[str, Any], head_dim: int) -> None:
    settings = {"max_position_embeddings": 32768, "rope_parameters": rope}
    oracle = LlamaConfig(hidden_size=4 * head_dim, num_attention_heads=4, **settings)
    wanted, factor = ROPE_INIT_FUNCTIONS[rope["rope_type"]](oracle, device=torch.device("cpu"))
    ours = read_rope(settings)
    torch.testing.assert_close(frequencies(ours, head_dim), wanted, rtol=1e-6, atol=0)
    assert ours.attention_factor == pytest.approx(factor)
