"""Tiny random checkpoints in Hugging Face's layout, with the transformers model that they were saved from as oracle.

A model's name is its family and options: "llama", "qwen3_moe+tied", "mistral+tied+yarn".
"""

from itertools import product
from pathlib import Path
from typing import Any

import torch
import transformers

CLASSES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    "qwen3_moe": (transformers.Qwen3MoeConfig, transformers.Qwen3MoeForCausalLM),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"head_dim": 24, "sliding_window": None},
    "qwen2": {},
    "qwen3": {"head_dim": 32},
    "qwen3_moe": {
        "head_dim": 32,
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "norm_topk_prob": True,
    },
}
OPTIONS: dict[str, dict[str, Any]] = {
    "tied": {"tie_word_embeddings": True},
    "biased": {"attention_bias": True, "mlp_bias": True},
    "llama3": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "yarn": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 64,
            "beta_fast": 8.0,
        }
    },
}
# Each family once, and each option once; then every family with tied and untied embeddings and all kinds of positions.
FAMILIES = ("llama", "llama+biased+llama3", "mistral", "qwen2+tied", "qwen3+yarn", "qwen3_moe")
VARIANTS = tuple("".join(parts) for parts in product(CLASSES, ("", "+tied"), ("", "+llama3", "+yarn")))


def save_tiny(folder: Path, name: str = "llama", **changes: Any) -> Any:
    """Write a two-layer model with 4 heads over 2 KV heads and 97 tokens to `folder`; returns the oracle."""
    family, *options = name.split("+")
    config_class, model_class = CLASSES[family]
    settings: dict[str, Any] = {
        "vocab_size": 97,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "eos_token_id": 96,
        "tie_word_embeddings": False,
    }
    for more in (SETTINGS[family], *(OPTIONS[option] for option in options), changes):
        settings |= more
    torch.manual_seed(0)
    model = model_class(config_class(**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Biases and norms start as zeros and ones, where a mistake would not show; weights start so small that
            # all logits are alike.
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.dim() == 1 else 0.05))
    model.save_pretrained(folder)
    return model


@torch.inference_mode()
def oracle_logits(model: Any, ids: list[int]) -> torch.Tensor:
    """Logits [len(ids), vocab] of the transformers model, computed in one go."""
    logits: torch.Tensor = model(torch.tensor([ids])).logits[0]
    return logits


def oracle_greedy(model: Any, ids: list[int], max_tokens: int, eos: int | None = None) -> list[int]:
    """The greedy answer, computed from scratch for each token: slow and simple."""
    known = list(ids)
    while len(known) < len(ids) + max_tokens:
        known.append(int(oracle_logits(model, known)[-1].argmax()))
        if known[-1] == eos:
            break
    return known[len(ids) :]
