"""Qwen3-MoE: Qwen3, where most layers choose a few of many small MLPs for each token."""

from __future__ import annotations

from dataclasses import replace

from minisgl.layers.experts import Experts
from minisgl.models.config import ExpertsConfig, ModelConfig, Settings
from minisgl.models.decoder import FeedForward
from minisgl.models.qwen3 import Qwen3ForCausalLM


class Qwen3MoeForCausalLM(Qwen3ForCausalLM):
    """Every `decoder_sparse_step`-th layer has experts, unless `mlp_only_layers` names it."""

    @classmethod
    def adapt(cls, config: ModelConfig, settings: Settings) -> ModelConfig:
        config = super().adapt(config, settings)
        # Transformers 5 writes `num_local_experts`; the published checkpoints say `num_experts`.
        num = int(settings["num_experts"] if "num_experts" in settings else settings["num_local_experts"])
        step, dense = int(settings.get("decoder_sparse_step", 1)), set(settings.get("mlp_only_layers") or ())
        layers = frozenset(i for i in range(config.num_layers) if (i + 1) % step == 0 and i not in dense)
        if not (num and layers):
            return config
        experts = ExpertsConfig(
            num=num,
            per_token=int(settings["num_experts_per_tok"]),
            width=int(settings["moe_intermediate_size"]),
            normalised=bool(settings.get("norm_topk_prob", False)),
            layers=layers,
        )
        return replace(config, experts=experts)

    def feed_forward(self, layer: int) -> FeedForward:
        experts = self.config.experts
        if experts is None or layer not in experts.layers:
            return super().feed_forward(layer)
        return Experts(
            f"model.layers.{layer}.mlp",
            self.config.hidden_size,
            experts.width,
            num=experts.num,
            per_token=experts.per_token,
            normalised=experts.normalised,
            place=self.place,
        )
