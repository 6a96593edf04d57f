"""Qwen2 and Qwen2.5: Llama with biases on queries, keys and values, whatever config.json says, and on nothing else."""

from __future__ import annotations

from minisgl.models.decoder import Decoder


class Qwen2ForCausalLM(Decoder):
    """Dense Qwen2."""
