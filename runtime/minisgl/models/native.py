"""A decoder's layers on one thread of a CPU: the same numbers as `decoder.Layer`, with fewer and larger operations.

At a few rows a step is bound by the beginning of each operation: this flow has nine a layer, four of them products.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from minisgl.attention.base import AttentionBackend
from minisgl.kernels.native import Kernels
from minisgl.layers.mlp import MLP
from minisgl.layers.norm import Norm
from minisgl.layers.rotary import Rotary

if TYPE_CHECKING:
    from minisgl.models.decoder import Attention, Layer


class NativeLayers:
    """All layers and the last norm; the weights stay those of the plain layers."""

    def __init__(self, layers: list[Layer], norm: Norm, rotary: Rotary, dtype: torch.dtype) -> None:
        self.layers, self.norm, self.rotary = layers, norm, rotary
        self.kernels = Kernels(dtype)

    def __call__(
        self, x: torch.Tensor, positions: torch.Tensor, wanted: torch.Tensor, backend: AttentionBackend
    ) -> torch.Tensor | None:
        """Vectors for the head [wanted, hidden] of embedded tokens `x`, which is overwritten; None: nothing wanted."""
        add_norm = self.kernels.add_norm
        delta: torch.Tensor | None = None
        for layer in self.layers:
            norm = layer.attention_norm
            normed = norm(x) if delta is None else add_norm(x, delta, norm.weight, norm.eps)
            delta = self._attend(layer.attention, normed, positions, backend)
            norm = layer.mlp_norm
            normed = add_norm(x, delta, norm.weight, norm.eps)
            mlp = layer.mlp
            delta = mlp.down(self.kernels.gate(mlp.gate_up(normed))) if isinstance(mlp, MLP) else mlp(normed)
        if not len(wanted):
            return None
        assert delta is not None, "a model has layers"
        if len(wanted) < len(x):
            x, delta = x.index_select(0, wanted), delta.index_select(0, wanted)
        return add_norm(x, delta, self.norm.weight, self.norm.eps)

    def _attend(
        self, attention: Attention, x: torch.Tensor, positions: torch.Tensor, backend: AttentionBackend
    ) -> torch.Tensor:
        if attention.qk_norm:
            return attention(x, self.rotary.at(positions), backend)
        heads = attention.heads
        both = heads + attention.kv_heads
        qkv = attention.qkv(x).view(len(x), -1, attention.dim)
        self.kernels.rotate(qkv, self.rotary.tables, positions, both)
        return attention.out(backend.attend(attention.layer, qkv[:, :heads], qkv[:, heads:both], qkv[:, both:]))
