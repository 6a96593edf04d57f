"""Mistral: Llama, but for the sliding window of its first version."""

from __future__ import annotations

from minisgl.models.decoder import Decoder


class MistralForCausalLM(Decoder):
    """Mistral 7B from v0.2 on, Mistral Nemo and others without a window."""
