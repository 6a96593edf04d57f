"""y = x W^T (+ b) for up to 16 rows, by tensor cores: a decode step of a few requests.

A program takes some outputs and all columns of their weights, a turn at a time, several turns in flight. Libraries
split such a product over programs and add the parts in a second kernel; here the first weights are on their way before
the kernel that makes x has ended.

Floor: W once, out * in * 2 bytes in 16 bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.nn import functional

from minisgl.kernels.chain import await_earlier, chain
from minisgl.kernels.draw import INTERPRETED
from minisgl.kernels.gemv import gemv

MOST_ROWS = 16  # the narrowest that tensor cores multiply; fewer are padded in registers

# Outputs per program, columns per turn, turns in flight: the first line whose number of outputs is reached. Among the
# best of ten on an H200, for each shape of Qwen3-0.6B and 14B.
BLOCKS = ((16_384, (64, 64, 5)), (5_120, (64, 128, 4)), (2_048, (32, 128, 5)), (0, (16, 256, 5)))


@triton.jit  # type: ignore[untyped-decorator]
def _dot(w: tl.tensor, v: tl.tensor) -> tl.tensor:
    if INTERPRETED:  # numpy has no bfloat16: it would multiply the bits
        return tl.dot(w.to(tl.float32), v.to(tl.float32))
    return tl.dot(w, v)


@triton.jit(do_not_specialize=["rows"])  # type: ignore[untyped-decorator]
def _skinny(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    y: tl.tensor,
    rows: tl.tensor,
    outs: tl.constexpr,
    ins: tl.constexpr,
    most_rows: tl.constexpr,
    block: tl.constexpr,
    turn: tl.constexpr,
    in_flight: tl.constexpr,
    has_bias: tl.constexpr,
    chained: tl.constexpr,
) -> None:
    out = tl.program_id(0) * block + tl.arange(0, block)
    row, column = tl.arange(0, most_rows), tl.arange(0, turn)
    is_out, is_row = out < outs, row < rows
    lines = weight + out.to(tl.int64)[:, None] * ins
    w = tl.load(lines + column[None, :], mask=is_out[:, None] & (column < ins)[None, :], other=0)
    await_earlier(chained)
    columns = x + row[None, :] * ins
    v = tl.load(columns + column[:, None], mask=is_row[None, :] & (column < ins)[:, None], other=0)
    total = _dot(w, v)
    for start in tl.range(turn, ins, turn, num_stages=in_flight):
        at = start + column
        w = tl.load(lines + at[None, :], mask=is_out[:, None] & (at < ins)[None, :], other=0)
        v = tl.load(columns + at[:, None], mask=is_row[None, :] & (at < ins)[:, None], other=0)
        total += _dot(w, v)
    if has_bias:
        total += tl.load(bias + out, mask=is_out, other=0).to(tl.float32)[:, None]
    target = y + row[None, :] * outs + out[:, None]
    tl.store(target, total.to(y.dtype.element_ty), mask=is_out[:, None] & is_row[None, :])


def skinny(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """x [1 to MOST_ROWS, in], weight [out, in], bias [out], contiguous, of one type; fp32 inside. y [rows, out]."""
    rows, ins = x.shape
    outs = weight.shape[0]
    y = x.new_empty(rows, outs)
    block, turn, in_flight = next(size for least, size in BLOCKS if outs >= least)
    _skinny[(triton.cdiv(outs, block),)](
        *(x, weight, weight if bias is None else bias, y, rows),
        *(outs, ins, MOST_ROWS, block, turn, in_flight, bias is not None),
        num_warps=4,
        **chain(x.device),
    )
    return y


def few_rows(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """The product for up to MOST_ROWS: one row is none of tensor cores' business."""
    return gemv(x, weight, bias) if len(x) == 1 else skinny(x, weight, bias)


def skinny_twin(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """The same in plain torch, on any device."""
    return functional.linear(x, weight, bias)
