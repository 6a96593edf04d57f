"""Mistral: Llama, but for the sliding window of its first version."""

from __future__ import annotations

from minisgl.models.config import ModelConfig, Settings, unsupported
from minisgl.models.decoder import Decoder


class MistralForCausalLM(Decoder):
    """Mistral 7B from v0.2 on, Mistral Nemo and others without a window."""

    @classmethod
    def adapt(cls, config: ModelConfig, settings: Settings) -> ModelConfig:
        window = settings.get("sliding_window")
        if window is not None and window < config.context_length:
            raise unsupported(
                f"sliding-window attention over {window} of its {config.context_length} tokens of context",
                "use a version whose config.json has no sliding_window",
            )
        return config
