"""Llama: the decoder as it stands. Biases, tied embeddings and stretched positions are settings of its config.json."""

from __future__ import annotations

from minisgl.models.decoder import Decoder


class LlamaForCausalLM(Decoder):
    """Llama 2 and 3, SmolLM2, TinyLlama and others of the shape."""
