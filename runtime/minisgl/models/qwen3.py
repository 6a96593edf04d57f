"""Qwen3: Llama with a norm on each head's query and key."""

from __future__ import annotations

from dataclasses import replace

from minisgl.models.config import ModelConfig, Settings
from minisgl.models.decoder import Decoder


class Qwen3ForCausalLM(Decoder):
    """Dense Qwen3."""

    @classmethod
    def adapt(cls, config: ModelConfig, settings: Settings) -> ModelConfig:
        return replace(config, qk_norm=True)
