"""The page table of a step from its list of pages: a line for each request, and how many tokens it has.

pages    7 3 | 5 | 9 8 2      bounds 0 2 3 6      last 4 1 2      page size 4
table    7 3 . / 5 . . / 9 8 2                    lengths 8 1 10        what a line has no page for is left alone
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK = 128  # pages at a time


# The width may change with every step, which must not lead to another compilation.
@triton.jit(do_not_specialize=["widest"])  # type: ignore[untyped-decorator]
def _spread(
    pages: tl.tensor,
    bounds: tl.tensor,
    last: tl.tensor,
    table: tl.tensor,
    lengths: tl.tensor,
    widest: tl.int32,
    page_size: tl.constexpr,
    block: tl.constexpr,
) -> None:
    request = tl.program_id(0)
    own = tl.load(bounds + request)
    used = tl.load(bounds + request + 1) - own
    tl.store(lengths + request, (used - 1) * page_size + tl.load(last + request))
    for first in range(0, used, block):
        at = first + tl.arange(0, block)
        page = tl.load(pages + own + at, mask=at < used, other=0)
        tl.store(table + request.to(tl.int64) * widest + at, page, mask=at < used)


def spread(
    paged: tuple[torch.Tensor, torch.Tensor, torch.Tensor], widest: int, page_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Table [requests, widest] and lengths [requests] of `paged`, as `kernels.decode` takes it; all int32."""
    requests = len(paged[2])
    table = torch.empty(requests, widest, dtype=torch.int32, device=paged[0].device)
    lengths = torch.empty(requests, dtype=torch.int32, device=paged[0].device)
    _spread[(requests,)](*paged, table, lengths, widest, page_size, BLOCK, num_warps=1)
    return table, lengths
