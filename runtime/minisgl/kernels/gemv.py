"""y = x W^T (+ b) for one to four rows, where the weights are read once and nothing else matters.

A program takes a few of the outputs and all columns of their weights, a turn of columns at a time; partial sums stay
in registers until the end. Libraries are made for many rows: at one they are 10 to 75% slower than reading W.

Floor: W once, out * in * 2 bytes in 16 bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.nn import functional

from minisgl.kernels.chain import await_earlier, chain

MOST_ROWS = 4

# Outputs per program: the first line whose number of outputs is reached. Few outputs are spread over the whole GPU
# (132 processors with 16 programs each), many have longer reads.
OUTPUTS = ((65_536, 8), (16_384, 4), (4_096, 2), (0, 1))


@triton.jit  # type: ignore[untyped-decorator]
def _gemv(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    y: tl.tensor,
    outs: tl.constexpr,
    ins: tl.constexpr,
    rows: tl.constexpr,
    block: tl.constexpr,
    turn: tl.constexpr,
    has_bias: tl.constexpr,
    chained: tl.constexpr,
) -> None:
    out = tl.program_id(0) * block + tl.arange(0, block)
    is_out = out < outs
    column = tl.arange(0, turn)
    lines = weight + out.to(tl.int64)[:, None] * ins
    # One name per row: a kernel has no lists of tensors that outlive a loop.
    sum0 = tl.zeros((block, turn), tl.float32)
    sum1, sum2, sum3 = sum0, sum0, sum0
    # The first turn's weights are on their way before the kernel that makes x has ended.
    w = tl.load(lines + column[None, :], mask=is_out[:, None] & (column < ins)[None, :], other=0)
    await_earlier(chained)
    for start in range(0, ins, turn):
        at = start + column
        is_in = at < ins
        if start > 0:
            w = tl.load(lines + at[None, :], mask=is_out[:, None] & is_in[None, :], other=0)
        wide = w.to(tl.float32)
        sum0 += wide * tl.load(x + at, mask=is_in, other=0).to(tl.float32)[None, :]
        if rows > 1:
            sum1 += wide * tl.load(x + ins + at, mask=is_in, other=0).to(tl.float32)[None, :]
        if rows > 2:
            sum2 += wide * tl.load(x + 2 * ins + at, mask=is_in, other=0).to(tl.float32)[None, :]
        if rows > 3:
            sum3 += wide * tl.load(x + 3 * ins + at, mask=is_in, other=0).to(tl.float32)[None, :]
    add = tl.zeros((block,), tl.float32)
    if has_bias:
        add = tl.load(bias + out, mask=is_out, other=0).to(tl.float32)
    tl.store(y + out, (tl.sum(sum0, axis=1) + add).to(y.dtype.element_ty), mask=is_out)
    if rows > 1:
        tl.store(y + outs + out, (tl.sum(sum1, axis=1) + add).to(y.dtype.element_ty), mask=is_out)
    if rows > 2:
        tl.store(y + 2 * outs + out, (tl.sum(sum2, axis=1) + add).to(y.dtype.element_ty), mask=is_out)
    if rows > 3:
        tl.store(y + 3 * outs + out, (tl.sum(sum3, axis=1) + add).to(y.dtype.element_ty), mask=is_out)


def gemv(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x [1 to MOST_ROWS, in], weight [out, in], bias [out], contiguous, of one type; fp32 inside. y [rows, out]."""
    rows, ins = x.shape
    outs = weight.shape[0]
    y = x.new_empty(rows, outs)
    block, turn = blocks(rows, outs, ins)
    grid = (triton.cdiv(outs, block),)
    _gemv[grid](
        *(x, weight, weight if bias is None else bias, y),
        *(outs, ins, rows, block, turn, bias is not None),
        num_warps=4,
        **chain(x.device),
    )
    return y


def blocks(rows: int, outs: int, ins: int) -> tuple[int, int]:
    """Outputs per program and columns per turn."""
    block = next(size for least, size in OUTPUTS if outs >= least)
    turn = min(1024, triton.next_power_of_2(ins))
    # Sums of all rows are held at once: 128 threads with 64 numbers each at most.
    while rows * block * turn > 8192:
        if turn > 512 or block == 1:
            turn //= 2
        else:
            block //= 2
    return block, turn


def gemv_twin(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """The same in plain torch, on any device."""
    return functional.linear(x, weight, bias)
