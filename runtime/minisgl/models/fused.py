"""A decoder's layers on a GPU in 16 bits: the same numbers as `decoder.Layer`, with fewer and larger kernels.

Keys and values go from the projection to the cache in the kernel that rotates them, where the backend can do without
seeing them (`attend_stored`). What a half of a layer gives is not added at once: the next norm takes the sum in.

    x, delta -> [ x += delta, norm ] -> attention -> delta -> [ x += delta, norm ] -> mlp -> delta -> next layer

Behind the last layer's attention only those tokens go on that the head is asked about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from minisgl.attention.base import AttentionBackend
from minisgl.kernels.gate import gate
from minisgl.kernels.heads import Shape, fits, place_heads
from minisgl.kernels.norm import add_norm
from minisgl.layers.mlp import MLP
from minisgl.layers.norm import Norm
from minisgl.layers.rotary import Rotary

if TYPE_CHECKING:
    from minisgl.models.decoder import Attention, Layer


class FusedLayers:
    """All layers and the last norm; the weights stay those of the plain layers."""

    def __init__(self, layers: list[Layer], norm: Norm, rotary: Rotary) -> None:
        self.layers, self.norm, self.rotary = layers, norm, rotary
        self.attentions = [FusedAttention(layer.attention, rotary) for layer in layers]
        self.mlps = [_feed_forward(layer) for layer in layers]

    def __call__(
        self, x: torch.Tensor, positions: torch.Tensor, wanted: torch.Tensor, backend: AttentionBackend
    ) -> torch.Tensor | None:
        """Vectors for the head [wanted, hidden] of embedded tokens `x`, which is overwritten; None: nothing wanted."""
        places = not any(attention.shape is None for attention in self.attentions) and backend.slots is not None
        at = None if places else self.rotary.at(positions)
        delta: torch.Tensor | None = None
        last = len(self.layers) - 1
        for i, (layer, attention, mlp) in enumerate(zip(self.layers, self.attentions, self.mlps, strict=True)):
            normed = _norm(layer.attention_norm, x, delta)
            out = (
                layer.attention.attend(normed, at, backend) if at is not None else attention(normed, positions, backend)
            )
            if i == last and len(wanted) < len(x):
                x, out = x.index_select(0, wanted), out.index_select(0, wanted)
                if not len(wanted):
                    return None
            delta = mlp(_norm(layer.mlp_norm, x, layer.attention.out(out)))
        return _norm(self.norm, x, delta)


class FusedAttention:
    """Projection, one kernel for all that stands before attention, attention; without the last projection."""

    def __init__(self, plain: Attention, rotary: Rotary) -> None:
        self.plain, self.rotary = plain, rotary
        norms = (plain.q_norm.weight, plain.k_norm.weight, plain.q_norm.eps) if plain.qk_norm else None
        self.shape = Shape(plain.heads, plain.kv_heads, plain.dim, norms) if fits(plain.dim) else None

    def __call__(self, x: torch.Tensor, positions: torch.Tensor, backend: AttentionBackend) -> torch.Tensor:
        plain, pool = self.plain, backend.pool
        assert self.shape is not None, "chosen where the kernel is made for the heads"
        assert backend.slots is not None, "chosen where the backend does without keys and values"
        cache = pool.k[plain.layer], pool.v[plain.layer]
        q = place_heads(plain.qkv(x), self.shape, self.rotary.tables, positions, backend.slots, cache)
        return backend.attend_stored(plain.layer, q)


def _norm(norm: Norm, x: torch.Tensor, delta: torch.Tensor | None) -> torch.Tensor:
    return norm(x) if delta is None else add_norm(x, delta, norm.weight, norm.eps)


def _feed_forward(layer: Layer) -> Callable[[torch.Tensor], torch.Tensor]:
    mlp = layer.mlp
    if not isinstance(mlp, MLP):
        return mlp

    def feed_forward(x: torch.Tensor) -> torch.Tensor:
        both = mlp.gate_up
        gated = both.matrix.gated(x, both.bias)
        return mlp.down(gate(both(x)) if gated is None else gated)

    return feed_forward
