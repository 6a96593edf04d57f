"""The residual stream's sum and its norm in one kernel: one program per token, which holds the token in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.nn import functional

from minisgl.kernels.chain import await_earlier, chain


@triton.jit  # type: ignore[untyped-decorator]
def _add_norm(
    x: tl.tensor,
    delta: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    eps: tl.constexpr,
    size: tl.constexpr,
    block: tl.constexpr,
    chained: tl.constexpr,
) -> None:
    at = tl.arange(0, block)
    inside = at < size
    here = tl.program_id(0).to(tl.int64) * size + at
    gain = tl.load(weight + at, mask=inside, other=0).to(tl.float32)
    await_earlier(chained)
    total = tl.load(x + here, mask=inside, other=0).to(tl.float32)
    total += tl.load(delta + here, mask=inside, other=0).to(tl.float32)
    kept = total.to(x.dtype.element_ty)  # normed as it is stored: in 16 bits
    tl.store(x + here, kept, mask=inside)
    wide = kept.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, axis=0) / size + eps)
    normed = wide * scale * gain
    tl.store(out + here, normed.to(out.dtype.element_ty), mask=inside)


def add_norm(x: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x += delta in place; returns x / rms(x) * weight.

    x and delta [tokens, size], weight [size], all contiguous and of one type; fp32 inside. Floor: 8 * tokens * size
    bytes in 16 bits (two read, two written).
    """
    tokens, size = x.shape
    out = torch.empty_like(x)
    block = triton.next_power_of_2(size)
    num_warps = max(1, min(16, block // 512))
    _add_norm[(tokens,)](x, delta, weight, out, eps, size, block, num_warps=num_warps, **chain(x.device))
    return out


def add_norm_twin(x: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """The same in plain torch, on any device."""
    x += delta
    return functional.rms_norm(x, [x.shape[1]], weight, eps)
