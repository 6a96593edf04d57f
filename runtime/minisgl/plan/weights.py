"""Bytes of a model's weights on one rank, as `models.decoder` lays them out. Rank 0's: the last may hold less of the
vocabulary.
"""

from __future__ import annotations

from minisgl.plan.config import BYTES, EngineConfig


def weight_bytes(config: EngineConfig) -> int:
    """All weights of one rank, in the format they are kept in."""
    model, ranks = config.model, config.tensor_parallel_size
    vocabulary = -(-model.vocab_size // ranks) * model.hidden_size
    numbers = vocabulary * (1 if model.tied_embeddings else 2)
    if config.keeps_copy:
        numbers += vocabulary
    numbers += model.num_layers * (_attention(config) + 2 * model.hidden_size) + model.hidden_size
    sparse = 0
    if model.experts is not None:
        sparse = len(model.experts.layers)
        width = model.experts.width // ranks
        # Every rank has the router and all experts, each with its share of the width.
        numbers += sparse * model.experts.num * model.hidden_size * (1 + 3 * width)
    numbers += (model.num_layers - sparse) * _mlp(config)
    return numbers * BYTES[config.dtype]


def table_bytes(config: EngineConfig) -> int:
    """Cosines and sines of all positions, whole on every rank."""
    return 2 * config.context_length * config.model.head_dim * BYTES[config.dtype]


def _attention(config: EngineConfig) -> int:
    model = config.model
    out = model.num_heads // config.tensor_parallel_size * model.head_dim
    qkv = out + 2 * config.num_kv_heads * model.head_dim
    biases = (qkv if model.qkv_bias else 0) + (model.hidden_size if model.output_bias else 0)
    norms = 2 * model.head_dim if model.qk_norm else 0
    return (qkv + out) * model.hidden_size + biases + norms


def _mlp(config: EngineConfig) -> int:
    model = config.model
    width = model.intermediate_size // config.tensor_parallel_size
    return 3 * width * model.hidden_size + (2 * width + model.hidden_size if model.mlp_bias else 0)
