"""The gate of an MLP: silu(gate) * up, from the fused projection."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.nn import functional

from minisgl.kernels.chain import await_earlier, chain

BLOCK = 1024


@triton.jit  # type: ignore[untyped-decorator]
def _gate(both: tl.tensor, out: tl.tensor, width: tl.constexpr, block: tl.constexpr, chained: tl.constexpr) -> None:
    token = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < width
    await_earlier(chained)
    gate = tl.load(both + token * 2 * width + at, mask=inside, other=0).to(tl.float32)
    up = tl.load(both + token * 2 * width + width + at, mask=inside, other=0).to(tl.float32)
    # Rounded between the two, as the twin's and everybody's activations are.
    silu = (gate / (1.0 + tl.exp(-gate))).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + token * width + at, (silu * up).to(out.dtype.element_ty), mask=inside)


def gate(both: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up [tokens, width] of `both` [tokens, gate and up: 2 * width], contiguous; fp32 inside.

    Floor: 6 * tokens * width bytes in 16 bits.
    """
    tokens, width = both.shape[0], both.shape[1] // 2
    out = both.new_empty(tokens, width)
    _gate[(tokens, triton.cdiv(width, BLOCK))](both, out, width, BLOCK, num_warps=4, **chain(both.device))
    return out


def gate_twin(both: torch.Tensor) -> torch.Tensor:
    """The same in plain torch, on any device."""
    gate, up = both.chunk(2, dim=-1)
    return functional.silu(gate).mul_(up)
