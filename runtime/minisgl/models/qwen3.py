"""Qwen3: Llama with a norm on each head's query and key."""

from __future__ import annotations

from minisgl.models.decoder import Decoder


class Qwen3ForCausalLM(Decoder):
    """Dense Qwen3."""
