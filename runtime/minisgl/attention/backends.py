"""The names of attention backends, and how to make one. A backend's module is imported only when it is chosen."""

from __future__ import annotations

from collections.abc import Callable

from minisgl.attention.base import AttentionBackend
from minisgl.attention.pair import PairAttention
from minisgl.attention.torch import TorchAttention
from minisgl.kvcache.pool import KVPool

MODULES = {"flash-attn": "flash_attn", "flashinfer-python": "flashinfer"}  # distribution -> what is imported


def build(names: str, pool: KVPool, num_heads: int) -> AttentionBackend:
    """`names`: "torch", "fi", or a pair "prefill,decode"."""
    prefill, _, decode = names.partition(",")
    first = BUILDERS[prefill](pool, num_heads)
    return PairAttention(first, BUILDERS[decode](pool, num_heads)) if decode else first


def _flashinfer(pool: KVPool, num_heads: int) -> AttentionBackend:
    from minisgl.attention.fi import FlashInferAttention

    return FlashInferAttention(pool, num_heads)


BUILDERS: dict[str, Callable[[KVPool, int], AttentionBackend]] = {"torch": TorchAttention, "fi": _flashinfer}
