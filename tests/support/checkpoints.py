"""Tiny random checkpoints in Hugging Face's layout, with the transformers model that they were saved from as oracle."""

from pathlib import Path
from typing import Any

import torch
import transformers

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-tied": {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    "llama3-rope": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 32},
}
CLASSES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
}


def save_tiny(folder: Path, family: str = "llama", **changes: Any) -> Any:
    """Write a two-layer model with 4 heads over 2 KV heads and 97 tokens to `folder`; returns the oracle."""
    config_class, model_class = CLASSES["llama" if family.startswith("llama") else family]
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
    torch.manual_seed(0)
    model = model_class(config_class(**(settings | FAMILIES[family] | changes))).eval()
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
