"""The prompts' lines of a step, among which stand the running requests', taken over from where a kernel left them.

queries   3 .. 6          source    p0 p1 p2 (shifted), or . . . p0 p1 p2
out       r0 r1 r2 p0 p1 p2
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK = 1024  # numbers at a time


@triton.jit  # type: ignore[untyped-decorator]
def _place(
    source: tl.tensor,
    out: tl.tensor,
    queries: tl.tensor,
    last: tl.constexpr,
    width: tl.constexpr,
    shifted: tl.constexpr,
    block: tl.constexpr,
) -> None:
    first, end = tl.load(queries), tl.load(queries + last)
    row = tl.program_id(0) + first
    if row < end:
        taken = row - first if shifted else row
        for start in range(0, width, block):
            at = start + tl.arange(0, block)
            line = tl.load(source + taken.to(tl.int64) * width + at, mask=at < width)
            tl.store(out + row.to(tl.int64) * width + at, line, mask=at < width)


def place_rows(source: torch.Tensor, out: torch.Tensor, queries: torch.Tensor, *, shifted: bool) -> None:
    """Copy the lines from queries[0] to queries[-1] (int32, on the device) of `source` to `out`, both [tokens, heads,
    dim] and contiguous. `shifted`: in `source` they begin with line 0.
    """
    width = out[0].numel()
    _place[(len(out),)](source, out, queries, len(queries) - 1, width, shifted, BLOCK, num_warps=4)


def place_rows_twin(source: torch.Tensor, out: torch.Tensor, queries: torch.Tensor, *, shifted: bool) -> None:
    """The same in plain torch, on any device."""
    first, end = int(queries[0]), int(queries[-1])
    out[first:end] = source[: end - first] if shifted else source[first:end]
