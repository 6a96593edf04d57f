"""Qwen3-MoE: Qwen3, where most layers choose a few of many small MLPs for each token."""

from __future__ import annotations

from minisgl.layers.experts import Experts
from minisgl.models.decoder import FeedForward
from minisgl.models.qwen3 import Qwen3ForCausalLM


class Qwen3MoeForCausalLM(Qwen3ForCausalLM):
    """Which layers have experts is said by its config.json."""

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
