"""Qwen2 and Qwen2.5: Llama with biases on queries, keys and values, whatever config.json says, and on nothing else."""

from __future__ import annotations

from dataclasses import replace

from minisgl.models.config import ModelConfig, Settings
from minisgl.models.decoder import Decoder


class Qwen2ForCausalLM(Decoder):
    """Dense Qwen2."""

    @classmethod
    def adapt(cls, config: ModelConfig, settings: Settings) -> ModelConfig:
        return replace(config, qkv_bias=True, output_bias=False)
