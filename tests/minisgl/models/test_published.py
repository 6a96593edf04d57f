"""The shapes of models that people serve: built without memory, they have as many parameters as were published."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from minisgl.distributed.group import Group
from minisgl.models import registry
from minisgl.plan.model import ModelConfig, check_tensor_parallel

pytestmark = pytest.mark.cpu


def shape(architecture: str, hidden: int, mlp: int, layers: int, heads: tuple[int, int], vocab: int) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "vocab_size": vocab,
        "max_position_embeddings": 40960,
        "rope_theta": 1e6,
        "torch_dtype": "bfloat16",
    }


MOE: dict[str, Any] = {
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
PUBLISHED = {
    "Llama-3.1-8B": (shape("LlamaForCausalLM", 4096, 14336, 32, (32, 8), 128256), 8_030_261_248),
    "Llama-3.1-70B": (shape("LlamaForCausalLM", 8192, 28672, 80, (64, 8), 128256), 70_553_706_496),
    "Mistral-7B-v0.3": (shape("MistralForCausalLM", 4096, 14336, 32, (32, 8), 32768), 7_248_023_552),
    "Qwen2.5-7B": (shape("Qwen2ForCausalLM", 3584, 18944, 28, (28, 4), 152064), 7_615_616_512),
    "Qwen3-0.6B": (
        shape("Qwen3ForCausalLM", 1024, 3072, 28, (16, 8), 151936) | {"head_dim": 128, "tie_word_embeddings": True},
        596_049_920,
    ),
    "Qwen3-32B": (shape("Qwen3ForCausalLM", 5120, 25600, 64, (64, 8), 151936) | {"head_dim": 128}, 32_762_123_264),
    "Qwen3-30B-A3B": (
        shape("Qwen3MoeForCausalLM", 2048, 6144, 48, (32, 4), 151936) | {"head_dim": 128} | MOE,
        30_532_122_624,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_its_published_number_of_parameters(name: str, tmp_path: Path) -> None:
    settings, published = PUBLISHED[name]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    config = ModelConfig.read(tmp_path)
    check_tensor_parallel(config, 4)
    model = registry.find(config.architecture)(config, 16, Group(), torch.bfloat16, "meta")
    assert sum(slot.target.numel() for slot in model.slots()) == published
