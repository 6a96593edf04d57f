"""The decoder that all families are: where they differ, ModelConfig has a switch or a family overrides a method.

Plain objects, not torch modules: a step on a small model is bound by the cost of each call. Names of tensors are those
of Hugging Face checkpoints. Knows nothing of requests; the attention backend holds the step's geometry.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import torch

from minisgl.attention.base import AttentionBackend
from minisgl.distributed.group import Group
from minisgl.kernels import native
from minisgl.layers.embedding import Vocabulary
from minisgl.layers.linear import ColumnLinear, Part, RowLinear
from minisgl.layers.mlp import MLP
from minisgl.layers.norm import Norm
from minisgl.layers.rotary import Rotary
from minisgl.layers.weight import Place, Slot, Weighted
from minisgl.models.frequencies import frequencies
from minisgl.models.native import NativeLayers
from minisgl.plan.model import ModelConfig

if TYPE_CHECKING:
    from minisgl.models.fused import FusedLayers

Positions = tuple[torch.Tensor, torch.Tensor]


class FeedForward(Protocol):
    """The second half of a layer: [tokens, hidden] to the same, token by token, summed over ranks."""

    parts: list[Weighted]

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...


class Attention:
    """Projections, head norms and rotary positions around the backend."""

    def __init__(self, config: ModelConfig, layer: int, rotary: Rotary, place: Place) -> None:
        name, dim, group = f"model.layers.{layer}.self_attn", config.head_dim, place.group
        self.layer, self.dim, self.rotary = layer, dim, rotary
        self.heads = config.num_heads // group.size
        self.kv_heads = max(1, config.num_kv_heads // group.size)
        # With more ranks than KV heads, neighbours hold the same head.
        first_kv = group.rank * config.num_kv_heads // group.size
        self.qkv = ColumnLinear(
            [
                Part(f"{name}.q_proj", self.heads * dim, group.rank * self.heads * dim),
                Part(f"{name}.k_proj", self.kv_heads * dim, first_kv * dim),
                Part(f"{name}.v_proj", self.kv_heads * dim, first_kv * dim),
            ],
            config.hidden_size,
            bias=config.qkv_bias,
            place=place,
        )
        self.out = RowLinear(
            f"{name}.o_proj", self.heads * dim, config.hidden_size, bias=config.output_bias, place=place
        )
        self.parts: list[Weighted] = [self.qkv, self.out]
        self.qk_norm = config.qk_norm
        if config.qk_norm:
            self.q_norm = Norm(f"{name}.q_norm", dim, config.norm_eps, place)
            self.k_norm = Norm(f"{name}.k_norm", dim, config.norm_eps, place)
            self.parts += [self.q_norm, self.k_norm]

    def __call__(self, x: torch.Tensor, positions: Positions, backend: AttentionBackend) -> torch.Tensor:
        return self.out(self.attend(x, positions, backend))

    def attend(self, x: torch.Tensor, positions: Positions, backend: AttentionBackend) -> torch.Tensor:
        """All but the last projection: [tokens, heads * head_dim]."""
        qkv = self.qkv(x).view(len(x), -1, self.dim)
        both = self.heads + self.kv_heads
        qk, v = qkv[:, :both], qkv[:, both:]
        if self.qk_norm:
            qk = torch.cat((self.q_norm(qk[:, : self.heads]), self.k_norm(qk[:, self.heads :])), dim=1)
        qk = self.rotary.apply(qk, positions)
        return backend.attend(self.layer, qk[:, : self.heads], qk[:, self.heads :], v)


class Layer:
    """Attention and MLP, each on a normed copy of the residual stream `x`, which is updated in place."""

    def __init__(
        self, config: ModelConfig, layer: int, rotary: Rotary, feed_forward: FeedForward, place: Place
    ) -> None:
        name, size, eps = f"model.layers.{layer}", config.hidden_size, config.norm_eps
        self.attention_norm = Norm(f"{name}.input_layernorm", size, eps, place)
        self.attention = Attention(config, layer, rotary, place)
        self.mlp_norm = Norm(f"{name}.post_attention_layernorm", size, eps, place)
        self.mlp = feed_forward
        self.parts = [self.attention_norm, *self.attention.parts, self.mlp_norm, *self.mlp.parts]

    def __call__(self, x: torch.Tensor, positions: Positions, backend: AttentionBackend) -> None:
        x += self.attention(self.attention_norm(x), positions, backend)
        x += self.mlp(self.mlp_norm(x))


class Decoder:
    """Token ids to logits. Weights are empty until `models.weights` fills `slots`."""

    def __init__(self, config: ModelConfig, context_length: int, group: Group, dtype: torch.dtype, device: str) -> None:
        self.config, self.place = config, Place(group, dtype, device)
        self.num_heads = config.num_heads // group.size
        self.num_kv_heads = max(1, config.num_kv_heads // group.size)
        size, place = config.hidden_size, self.place
        self.rotary = Rotary(
            frequencies(config.rope, config.head_dim), context_length, dtype, device, config.rope.attention_factor
        )
        self.embedding = Vocabulary(
            "model.embed_tokens", config.vocab_size, size, embeds=True, scores=config.tied_embeddings, place=place
        )
        self.layers = [Layer(config, i, self.rotary, self.feed_forward(i), place) for i in range(config.num_layers)]
        self.norm = Norm("model.norm", size, config.norm_eps, place)
        self.head = self.embedding
        self.parts: list[Weighted] = [
            self.embedding,
            *(part for layer in self.layers for part in layer.parts),
            self.norm,
        ]
        if not config.tied_embeddings:
            self.head = Vocabulary("lm_head", config.vocab_size, size, embeds=False, scores=True, place=place)
            self.parts.append(self.head)
        self.fused: FusedLayers | NativeLayers | None = None
        if place.fuses:
            from minisgl.models.fused import FusedLayers

            self.fused = FusedLayers(self.layers, self.norm, self.rotary)
        elif device == "cpu" and native.is_usable():
            self.fused = NativeLayers(self.layers, self.norm, self.rotary, dtype)

    def feed_forward(self, layer: int) -> FeedForward:
        """The second half of a layer, where a family differs."""
        config = self.config
        name = f"model.layers.{layer}.mlp"
        return MLP(name, config.hidden_size, config.intermediate_size, bias=config.mlp_bias, place=self.place)

    def slots(self) -> Iterator[Slot]:
        """Every place that a checkpoint tensor fills."""
        for part in self.parts:
            yield from part.slots

    def loaded(self) -> int:
        """Prepare for speed, once all slots are filled; returns the bytes that this adds to the weights."""
        return sum(part.loaded() for part in self.parts)

    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, wanted: torch.Tensor, backend: AttentionBackend
    ) -> torch.Tensor | None:
        """Logits [wanted, vocab] of the tokens at the indices `wanted`, on rank 0; all tensors int64.

        With nothing wanted (a chunk in the middle of a prompt) the head is skipped.
        """
        hidden = self.hidden(tokens, positions, wanted, backend)
        return None if hidden is None else self.head.logits(hidden)

    def hidden(
        self, tokens: torch.Tensor, positions: torch.Tensor, wanted: torch.Tensor, backend: AttentionBackend
    ) -> torch.Tensor | None:
        """What the head makes logits of: vectors [wanted, hidden] (`wanted` ascending); None when nothing is wanted."""
        x = self.embedding.embed(tokens)
        if self.fused is not None:
            return self.fused(x, positions, wanted, backend)
        at = self.rotary.at(positions)
        for layer in self.layers:
            layer(x, at, backend)
        if not len(wanted):
            return None
        if len(wanted) < len(x):
            x = x.index_select(0, wanted)
        return self.norm(x)
