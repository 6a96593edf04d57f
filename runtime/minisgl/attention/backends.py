"""The names of attention backends, and how to make one. What is slow to import is imported only when it is chosen."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from minisgl.attention import flash
from minisgl.attention.base import AttentionBackend
from minisgl.attention.native import NativeAttention
from minisgl.attention.pair import PairAttention
from minisgl.attention.torch import TorchAttention
from minisgl.device import generation, has_avx512
from minisgl.kernels import native
from minisgl.kvcache.pool import KVPool
from minisgl.plan.config import AVX512, COMPILER, FLASHINFER


def installed() -> list[str]:
    """What this machine has of all that `EngineConfig.resolve` asks for."""
    has = {
        FLASHINFER: find_spec("flashinfer") is not None,
        COMPILER: native.is_usable(),
        AVX512: has_avx512(),
    }
    return flash.installed() + generation() + [name for name, is_there in has.items() if is_there]


def build(names: str, pool: KVPool, num_heads: int) -> AttentionBackend:
    """`names`: "torch", "fa", "fi", "native", or a pair "prefill,decode"."""
    prefill, _, decode = names.partition(",")
    first = BUILDERS[prefill](pool, num_heads)
    return PairAttention(first, BUILDERS[decode](pool, num_heads)) if decode else first


def _native(pool: KVPool, num_heads: int) -> AttentionBackend:
    return PairAttention(TorchAttention(pool, num_heads), NativeAttention(pool, num_heads))


def _flashinfer(pool: KVPool, num_heads: int) -> AttentionBackend:
    from minisgl.attention.fi import FlashInferAttention

    return FlashInferAttention(pool, num_heads)


def _flash(pool: KVPool, num_heads: int) -> AttentionBackend:
    from minisgl.attention.fa import FlashAttention

    return FlashAttention(pool, num_heads)


BUILDERS: dict[str, Callable[[KVPool, int], AttentionBackend]] = {
    "torch": TorchAttention,
    "native": _native,
    "fa": _flash,
    "fi": _flashinfer,
}
