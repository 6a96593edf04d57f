"""How much longer a token takes that stands far behind its prompt's begin. Pure arithmetic."""

from __future__ import annotations

from minisgl.plan.model import ModelConfig


def even_past(model: ModelConfig) -> int:
    """Tokens behind a token that cost it as much time as all else, for the scheduler's budget.

    Twice as many as arithmetic says. By that, attending (two products of a head's width with each token behind, for
    every head) is even with a layer's weights (a product and a sum for each) at weights / (2 * heads * head_dim);
    steps that were cut so short would read the weights too often. Qwen3-0.6B 7,680; 14B 64,512.
    """
    heads = 2 * model.num_heads + 2 * model.num_kv_heads
    width = model.intermediate_size
    if model.experts is not None:  # a token meets those that it is sent to
        width = model.experts.per_token * model.experts.width
    layer = (heads * model.head_dim + 3 * width) * model.hidden_size
    return max(1, layer // (model.num_heads * model.head_dim))
