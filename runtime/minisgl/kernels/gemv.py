"""y = x W^T (+ b) for one row, where the weights are read once and nothing else matters.

A program takes a few of the outputs and all columns of their weights, a turn of columns at a time; partial sums stay
in registers until the end. Libraries are made for many rows: at one they are 10 to 75% slower than reading W.

Floor: W once, out * in * 2 bytes in 16 bits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch.nn import functional

from minisgl.kernels.chain import await_earlier, chain


class Blocks(NamedTuple):
    """Outputs per program, columns per turn, warps per program."""

    outs: int
    turn: int
    warps: int


# By the number of columns, up to so many: the best of 30 on an H200, within 5% for each shape of Qwen3-0.6B and 14B.
SHORT, MIDDLE, LONG, LONGEST = Blocks(4, 512, 2), Blocks(2, 1024, 4), Blocks(1, 1024, 4), Blocks(4, 1024, 8)
BLOCKS = ((1_024, SHORT), (2_048, MIDDLE), (8_192, LONG))


@triton.jit  # type: ignore[untyped-decorator]
def _gemv(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    y: tl.tensor,
    outs: tl.constexpr,
    ins: tl.constexpr,
    block: tl.constexpr,
    turn: tl.constexpr,
    has_bias: tl.constexpr,
    chained: tl.constexpr,
) -> None:
    out = tl.program_id(0) * block + tl.arange(0, block)
    is_out = out < outs
    column = tl.arange(0, turn)
    lines = weight + out.to(tl.int64)[:, None] * ins
    total = tl.zeros((block, turn), tl.float32)
    # The first turn's weights are on their way before the kernel that makes x has ended.
    w = tl.load(lines + column[None, :], mask=is_out[:, None] & (column < ins)[None, :], other=0)
    await_earlier(chained)
    for start in range(0, ins, turn):
        at = start + column
        is_in = at < ins
        if start > 0:
            w = tl.load(lines + at[None, :], mask=is_out[:, None] & is_in[None, :], other=0)
        total += w.to(tl.float32) * tl.load(x + at, mask=is_in, other=0).to(tl.float32)[None, :]
    result = tl.sum(total, axis=1)
    if has_bias:
        result += tl.load(bias + out, mask=is_out, other=0).to(tl.float32)
    tl.store(y + out, result.to(y.dtype.element_ty), mask=is_out)


def gemv(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x [1, in], weight [out, in], bias [out], contiguous, of one type; fp32 inside. y [1, out]."""
    outs, ins = weight.shape
    y = x.new_empty(1, outs)
    block, turn, warps = blocks(ins)
    _gemv[(triton.cdiv(outs, block),)](
        *(x, weight, weight if bias is None else bias, y),
        *(outs, ins, block, turn, bias is not None),
        num_warps=warps,
        **chain(x.device),
    )
    return y


def blocks(ins: int) -> Blocks:
    """How the weights are cut."""
    return next((blocks for most, blocks in BLOCKS if ins <= most), LONGEST)


def gemv_twin(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """The same in plain torch, on any device."""
    return functional.linear(x, weight, bias)
