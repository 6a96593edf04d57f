"""The decoder of the Llama family (Llama, Qwen2, Qwen3): where they differ, ModelConfig has a switch.

Plain objects, not torch modules: a step on a small model is bound by the cost of each call. Names of tensors are those
of Hugging Face checkpoints. Knows nothing of requests; the attention backend holds the step's geometry.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch.nn import functional

from minisgl.attention.base import AttentionBackend
from minisgl.distributed.group import Group
from minisgl.layers.embedding import Vocabulary
from minisgl.layers.linear import ColumnLinear, Part, RowLinear
from minisgl.layers.norm import Norm
from minisgl.layers.rotary import Rotary
from minisgl.layers.weight import Slot, Weighted
from minisgl.models.config import ModelConfig
from minisgl.models.rope import frequencies

Positions = tuple[torch.Tensor, torch.Tensor]


class Attention:
    """Projections, head norms and rotary positions around the backend."""

    def __init__(
        self, config: ModelConfig, layer: int, rotary: Rotary, group: Group, dtype: torch.dtype, device: str
    ) -> None:
        name, dim = f"model.layers.{layer}.self_attn", config.head_dim
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
            dtype=dtype,
            device=device,
        )
        self.out = RowLinear(
            f"{name}.o_proj",
            self.heads * dim,
            config.hidden_size,
            bias=config.output_bias,
            group=group,
            dtype=dtype,
            device=device,
        )
        self.parts: list[Weighted] = [self.qkv, self.out]
        self.qk_norm = config.qk_norm
        if config.qk_norm:
            self.q_norm = Norm(f"{name}.q_norm", dim, config.norm_eps, dtype=dtype, device=device)
            self.k_norm = Norm(f"{name}.k_norm", dim, config.norm_eps, dtype=dtype, device=device)
            self.parts += [self.q_norm, self.k_norm]

    def __call__(self, x: torch.Tensor, positions: Positions, backend: AttentionBackend) -> torch.Tensor:
        qkv = self.qkv(x).view(len(x), -1, self.dim)
        both = self.heads + self.kv_heads
        qk, v = qkv[:, :both], qkv[:, both:]
        if self.qk_norm:
            qk = torch.cat((self.q_norm(qk[:, : self.heads]), self.k_norm(qk[:, self.heads :])), dim=1)
        qk = self.rotary.apply(qk, positions)
        return self.out(backend.attend(self.layer, qk[:, : self.heads], qk[:, self.heads :], v))


class MLP:
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig, layer: int, group: Group, dtype: torch.dtype, device: str) -> None:
        name = f"model.layers.{layer}.mlp"
        self.width = config.intermediate_size // group.size
        parts = [Part(f"{name}.{which}_proj", self.width, group.rank * self.width) for which in ("gate", "up")]
        self.gate_up = ColumnLinear(parts, config.hidden_size, bias=config.mlp_bias, dtype=dtype, device=device)
        self.down = RowLinear(
            f"{name}.down_proj",
            self.width,
            config.hidden_size,
            bias=config.mlp_bias,
            group=group,
            dtype=dtype,
            device=device,
        )
        self.parts: list[Weighted] = [self.gate_up, self.down]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(functional.silu(gate).mul_(up))


class Layer:
    """Attention and MLP, each on a normed copy of the residual stream `x`, which is updated in place."""

    def __init__(
        self, config: ModelConfig, layer: int, rotary: Rotary, group: Group, dtype: torch.dtype, device: str
    ) -> None:
        name, size, eps = f"model.layers.{layer}", config.hidden_size, config.norm_eps
        self.attention_norm = Norm(f"{name}.input_layernorm", size, eps, dtype=dtype, device=device)
        self.attention = Attention(config, layer, rotary, group, dtype, device)
        self.mlp_norm = Norm(f"{name}.post_attention_layernorm", size, eps, dtype=dtype, device=device)
        self.mlp = MLP(config, layer, group, dtype, device)
        self.parts = [self.attention_norm, *self.attention.parts, self.mlp_norm, *self.mlp.parts]

    def __call__(self, x: torch.Tensor, positions: Positions, backend: AttentionBackend) -> None:
        x += self.attention(self.attention_norm(x), positions, backend)
        x += self.mlp(self.mlp_norm(x))


class Decoder:
    """Token ids to logits. Weights are empty until `models.weights` fills `slots`."""

    def __init__(self, config: ModelConfig, context_length: int, group: Group, dtype: torch.dtype, device: str) -> None:
        self.num_heads = config.num_heads // group.size
        self.num_kv_heads = max(1, config.num_kv_heads // group.size)
        vocabulary = partial(
            Vocabulary,
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            group=group,
            dtype=dtype,
            device=device,
        )
        self.embedding = vocabulary("model.embed_tokens", embeds=True, scores=config.tied_embeddings)
        self.rotary = Rotary(frequencies(config.rope, config.head_dim), context_length, dtype, device)
        self.layers = [Layer(config, i, self.rotary, group, dtype, device) for i in range(config.num_layers)]
        self.norm = Norm("model.norm", config.hidden_size, config.norm_eps, dtype=dtype, device=device)
        self.head = self.embedding if config.tied_embeddings else vocabulary("lm_head", embeds=False, scores=True)
        self.parts: list[Weighted] = [
            self.embedding,
            *(part for layer in self.layers for part in layer.parts),
            self.norm,
        ]
        if self.head is not self.embedding:
            self.parts.append(self.head)

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
        x = self.embedding.embed(tokens)
        at = self.rotary.at(positions)
        for layer in self.layers:
            layer(x, at, backend)
        if not len(wanted):
            return None
        if len(wanted) < len(x):
            x = x.index_select(0, wanted)
        return self.head.logits(self.norm(x))
