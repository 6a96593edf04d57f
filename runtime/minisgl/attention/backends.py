"""The names of attention backends, and how to make one. What is slow to import is imported only when it is chosen."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from minisgl.attention.base import AttentionBackend
from minisgl.attention.native import NativeAttention
from minisgl.attention.pair import PairAttention
from minisgl.attention.torch import TorchAttention
from minisgl.device import has_avx512
from minisgl.kernels import native
from minisgl.kvcache.pool import KVPool
from minisgl.plan.config import AVX512, COMPILER

MODULES = {"flash-attn": "flash_attn", "flashinfer-python": "flashinfer"}  # distribution -> what is imported


def installed() -> list[str]:
    """What this machine has of all that `EngineConfig.resolve` asks for."""
    found = [package for package, module in MODULES.items() if find_spec(module)]
    found += [COMPILER] if native.is_usable() else []
    return [*found, AVX512] if has_avx512() else found


def build(names: str, pool: KVPool, num_heads: int) -> AttentionBackend:
    """`names`: "torch", "fi", or a pair "prefill,decode"."""
    prefill, _, decode = names.partition(",")
    first = BUILDERS[prefill](pool, num_heads)
    return PairAttention(first, BUILDERS[decode](pool, num_heads)) if decode else first


def _native(pool: KVPool, num_heads: int) -> AttentionBackend:
    return PairAttention(TorchAttention(pool, num_heads), NativeAttention(pool, num_heads))


def _flashinfer(pool: KVPool, num_heads: int) -> AttentionBackend:
    from minisgl.attention.fi import FlashInferAttention

    return FlashInferAttention(pool, num_heads)


BUILDERS: dict[str, Callable[[KVPool, int], AttentionBackend]] = {
    "torch": TorchAttention,
    "native": _native,
    "fi": _flashinfer,
}
