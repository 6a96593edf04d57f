"""The tokens of a step: those that the host knows, and for the rest what their rows sampled last.

tokens    7  -1   4  -1        below 0: not known to the host
rows      2   0   2   5        last[0] = 9, last[5] = 3
new       7   9   4   3
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from minisgl.kernels.chain import await_earlier, chain

BLOCK = 256


# Any number of tokens, and columns that begin anywhere in one buffer, are one compilation.
@triton.jit(do_not_specialize=["count"], do_not_specialize_on_alignment=["tokens", "rows"])  # type: ignore[untyped-decorator]
def _fill_in(
    tokens: tl.tensor,
    rows: tl.tensor,
    last: tl.tensor,
    new: tl.tensor,
    count: tl.int32,
    block: tl.constexpr,
    chained: tl.constexpr,
) -> None:
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < count
    await_earlier(chained)
    token = tl.load(tokens + at, mask=inside, other=0)
    sampled = tl.load(last + tl.load(rows + at, mask=inside, other=0), mask=inside & (token < 0), other=0)
    tl.store(new + at, tl.where(token < 0, sampled, token), mask=inside)


def fill_in(tokens: torch.Tensor, rows: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """`tokens` [n], with last[rows] where one is below 0; `rows` [n] and `last` too are int64 and contiguous."""
    new = torch.empty_like(tokens)
    count = len(tokens)
    _fill_in[(triton.cdiv(count, BLOCK),)](tokens, rows, last, new, count, BLOCK, num_warps=8, **chain(tokens.device))
    return new


def fill_in_twin(tokens: torch.Tensor, rows: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """The same in plain torch, on any device."""
    return torch.where(tokens < 0, last[rows], tokens)
