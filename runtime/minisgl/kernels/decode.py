"""Attention of requests with one token each over a paged cache in fp8, which is read once and widened on the way.

    a request's tokens   [ part 0 ........ | part 1 ........ | part 2 .. )    one program for a part and a KV head: the
                                                                              group of its query heads is padded to 16
    partial, weight      [ out, log-sum    | out, log-sum    | … ]
    second kernel        out = sum of the partial ones, by their weights      only where there is more than one part

Products are in float16, which holds every number of e4m3 exactly. Floor: the keys and values once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from minisgl.kernels.chain import await_earlier, chain

TILE = 16  # queries: the least that tensor cores multiply
BLOCK, WARPS, STAGES = 128, 4, 2  # tokens at a time; the best of 24 ways with 256 requests on an H200
PROGRAMS_PER_PROCESSOR, MOST_PARTS = 4, 32
LOG2_E = 1.4426950408889634


@triton.jit  # type: ignore[untyped-decorator]
def _attend_part(
    q: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    pages: tl.tensor,
    bounds: tl.tensor,
    last: tl.tensor,
    out: tl.tensor,
    weights: tl.tensor,
    scale: tl.constexpr,
    empty_page: tl.constexpr,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    dim: tl.constexpr,
    page_size: tl.constexpr,
    page_stride: tl.constexpr,
    slot_stride: tl.constexpr,
    head_stride: tl.constexpr,
    tile: tl.constexpr,
    block: tl.constexpr,
    parts: tl.constexpr,
    chained: tl.constexpr,
) -> None:
    group: tl.constexpr = heads // kv_heads
    request, kv_head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    member = tl.arange(0, tile)
    head = kv_head * group + member
    is_real = member < group
    at = tl.arange(0, dim)
    await_earlier(chained)
    own = tl.load(bounds + request)
    length = (tl.load(bounds + request + 1) - own - 1) * page_size + tl.load(last + request)
    query = tl.load(q + (request * heads + head)[:, None] * dim + at[None, :], mask=is_real[:, None], other=0.0)
    query = (query.to(tl.float32) * scale).to(tl.float16)
    share = tl.cdiv(tl.cdiv(length, parts), block) * block
    begin = part * share
    end = tl.minimum(length, begin + share)
    best = tl.full([tile], -float("inf"), tl.float32)
    total = tl.zeros([tile], tl.float32)
    sums = tl.zeros([tile, dim], tl.float32)
    for first in range(begin, end, block):
        token = first + tl.arange(0, block)
        inside = token < end
        page = tl.load(pages + own + token // page_size, mask=inside, other=empty_page)
        place = page.to(tl.int64) * page_stride + token % page_size * slot_stride + kv_head * head_stride
        key = tl.load(keys + place[None, :] + at[:, None])
        score = tl.where(inside[None, :], tl.dot(query, key.to(tl.float16)), -float("inf"))
        higher = tl.maximum(best, tl.max(score, axis=1))
        value = tl.load(values + place[:, None] + at[None, :])
        chance = tl.exp2(score - higher[:, None])
        fade = tl.exp2(best - higher)
        total = total * fade + tl.sum(chance, axis=1)
        sums = sums * fade[:, None] + tl.dot(chance.to(tl.float16), value.to(tl.float16))
        best = higher
    line = (request * heads + head) * parts + part
    # A part without tokens has weight zero, and its sums are zero.
    result = sums / tl.where(total > 0, total, 1.0)[:, None]
    tl.store(out + line[:, None] * dim + at[None, :], result, mask=is_real[:, None])
    if parts > 1:
        tl.store(weights + line, best + tl.log2(total), mask=is_real)


@triton.jit  # type: ignore[untyped-decorator]
def _merge_parts(
    partial: tl.tensor,
    weights: tl.tensor,
    out: tl.tensor,
    dim: tl.constexpr,
    parts: tl.constexpr,
    block: tl.constexpr,
    chained: tl.constexpr,
) -> None:
    line, part, at = tl.program_id(0), tl.arange(0, block), tl.arange(0, dim)
    await_earlier(chained)
    weight = tl.load(weights + line * parts + part, mask=part < parts, other=-float("inf"))
    share = tl.exp2(weight - tl.max(weight, axis=0))
    share = share / tl.sum(share, axis=0)
    places = partial + (line * parts + part)[:, None] * dim + at[None, :]
    sums = tl.load(places, mask=(part < parts)[:, None], other=0.0)
    tl.store(out + line * dim + at, tl.sum(sums * share[:, None], axis=0))


def num_parts(requests: int, kv_heads: int, processors: int) -> int:
    """Programs for each request and KV head, so that a few requests fill the device."""
    return max(1, min(MOST_PARTS, PROGRAMS_PER_PROCESSOR * processors // (requests * kv_heads)))


def decode(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    paged: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    empty_page: int,
    parts: int = 1,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attend the queries `q` [requests, heads, dim], each to its request's tokens. Returns [requests, heads, dim].

    keys and values: one layer [pages, page_size, kv_heads, dim] in e4m3, of the same strides, heads contiguous each;
    paged, all int32: the pages of all requests in order, where each request's begin and the last one's end
    [requests + 1], and the tokens in each one's last page [requests]; parts: programs that share a request and KV head.
    """
    requests, heads, dim = q.shape
    _, page_size, kv_heads, _ = keys.shape
    out = torch.empty_like(q) if out is None else out
    partial, weights = out, out
    if parts > 1:
        partial = torch.empty(requests, heads, parts, dim, dtype=torch.float32, device=q.device)
        weights = torch.empty(requests, heads, parts, dtype=torch.float32, device=q.device)
    _attend_part[(requests, kv_heads, parts)](
        *(q, keys, values, *paged, partial, weights),
        scale=dim**-0.5 * LOG2_E,
        empty_page=empty_page,
        heads=heads,
        kv_heads=kv_heads,
        dim=dim,
        page_size=page_size,
        page_stride=keys.stride(0),
        slot_stride=keys.stride(1),
        head_stride=keys.stride(2),
        tile=max(TILE, triton.next_power_of_2(heads // kv_heads)),
        block=BLOCK,
        parts=parts,
        num_warps=WARPS,
        num_stages=STAGES,
        **chain(q.device),
    )
    if parts > 1:
        lines, block = requests * heads, triton.next_power_of_2(parts)
        _merge_parts[(lines,)](partial, weights, out, dim, parts, block, num_warps=1, **chain(q.device))
    return out


def decode_twin(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    paged: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """The same in plain torch, on any device."""
    out = torch.empty_like(q)
    page_size, kv_heads, dim = keys.shape[1:]
    bounds = paged[1].tolist()
    for i, last in enumerate(paged[2].tolist()):
        pages = paged[0][bounds[i] : bounds[i + 1]].long()
        length = (len(pages) - 1) * page_size + last
        k, v = (x.view(torch.uint8)[pages].view(keys.dtype).float().flatten(0, 1) for x in (keys, values))
        wide = q[i].float().view(kv_heads, -1, dim)
        scores = torch.einsum("hgd,thd->hgt", wide, k[:length]) * dim**-0.5
        out[i] = torch.einsum("hgt,thd->hgd", scores.softmax(-1), v[:length]).reshape(-1, dim)
    return out
