"""Between the projection and attention, in one kernel: head norms, rotary positions, keys and values into the cache.

qkv of a token   [ q 0 | q 1 | … | k 0 | … | v 0 | … ]      one program takes a few heads, whatever they are
                    |              |         |
                norm, rotate   norm, rotate  |
                    v              v         v
                 q out          key cache   value cache     at the token's slot

A cache in fp8 takes what is beyond its largest number as that number.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch.nn import functional

from minisgl.kernels.chain import await_earlier, chain
from minisgl.kvcache.pool import FP8, narrow

NUMBERS = 1024  # of a token's projection, per program: 16 for each thread of two warps


class Shape(NamedTuple):
    """Of one rank's heads. `norms`: the weights of the q and k norms [dim] and their epsilon, or None."""

    heads: int
    kv_heads: int
    dim: int
    norms: tuple[torch.Tensor, torch.Tensor, float] | None


def fits(dim: int) -> bool:
    """Whether the kernel is made for heads of `dim`: powers of two."""
    return 16 <= dim <= NUMBERS and dim & (dim - 1) == 0


@triton.jit  # type: ignore[untyped-decorator]
def _narrow(x: tl.tensor, narrows: tl.constexpr) -> tl.tensor:
    """As `kvcache.pool.narrow`, where the cache is in fp8."""
    if narrows:
        x = tl.minimum(tl.maximum(x.to(tl.float32), -448.0), 448.0).to(tl.float8e4nv)
    return x


# Positions may be a column of a buffer: where it begins must not lead to another compilation in the middle of work.
@triton.jit(do_not_specialize_on_alignment=["positions", "slots"])  # type: ignore[untyped-decorator]
def _place_heads(
    qkv: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    positions: tl.tensor,
    slots: tl.tensor,
    q_norm: tl.tensor,
    k_norm: tl.tensor,
    q_out: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    page_stride: tl.constexpr,
    slot_stride: tl.constexpr,
    head_stride: tl.constexpr,
    page_size: tl.constexpr,
    eps: tl.constexpr,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    dim: tl.constexpr,
    group: tl.constexpr,
    has_norm: tl.constexpr,
    narrows: tl.constexpr,
    chained: tl.constexpr,
) -> None:
    kind: tl.constexpr = qkv.dtype.element_ty
    half: tl.constexpr = dim // 2
    token = tl.program_id(0).to(tl.int64)
    head = (tl.program_id(1) * group + tl.arange(0, group))[:, None]
    at = tl.arange(0, half)[None, :]
    is_q = head < heads
    is_k = (head >= heads) & (head < heads + kv_heads)
    is_v = (head >= heads + kv_heads) & (head < heads + 2 * kv_heads)
    source = qkv + token * ((heads + 2 * kv_heads) * dim) + head * dim + at
    inside = head < heads + 2 * kv_heads
    await_earlier(chained)
    left, right = tl.load(source, mask=inside, other=0), tl.load(source + half, mask=inside, other=0)

    a, b = left.to(tl.float32), right.to(tl.float32)
    if has_norm:
        scale = tl.rsqrt(tl.sum(a * a + b * b, axis=1) / dim + eps)[:, None]
        left_weight = tl.where(is_q, tl.load(q_norm + at), tl.load(k_norm + at)).to(tl.float32)
        right_weight = tl.where(is_q, tl.load(q_norm + half + at), tl.load(k_norm + half + at)).to(tl.float32)
        # Rounded between norm and rotation, as the twin's and everybody's are.
        a, b = (a * scale * left_weight).to(kind).to(tl.float32), (b * scale * right_weight).to(kind).to(tl.float32)
    position = tl.load(positions + token)
    # Both halves of a table's row are the same but for the sine's sign, which stands in the left one.
    c = tl.load(cos + position * dim + at).to(tl.float32)
    s = tl.load(sin + position * dim + half + at).to(tl.float32)
    turned_left, turned_right = (a * c - b * s).to(kind), (b * c + a * s).to(kind)

    target = q_out + token * (heads * dim) + head * dim + at
    tl.store(target, turned_left, mask=is_q)
    tl.store(target + half, turned_right, mask=is_q)
    slot = tl.load(slots + token)
    place = slot // page_size * page_stride + slot % page_size * slot_stride + at
    target = keys + place + (head - heads) * head_stride
    tl.store(target, _narrow(turned_left, narrows), mask=is_k)
    tl.store(target + half, _narrow(turned_right, narrows), mask=is_k)
    target = values + place + (head - heads - kv_heads) * head_stride
    tl.store(target, _narrow(left, narrows), mask=is_v)
    tl.store(target + half, _narrow(right, narrows), mask=is_v)


def place_heads(
    qkv: torch.Tensor,
    shape: Shape,
    tables: tuple[torch.Tensor, torch.Tensor],
    positions: torch.Tensor,
    slots: torch.Tensor,
    cache: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Store keys and values of `qkv` [tokens, (heads + 2 * kv_heads) * dim] and return q [tokens, heads, dim].

    tables: cosine and signed sine [context, dim]; positions and slots int64 [tokens]; cache: keys and values of one
    layer [pages, page_size, kv_heads, dim], of the same strides, heads contiguous each, in fp8 or as the rest. All else
    is contiguous and, but for the indices, of one type; fp32 inside.
    Floor: twice qkv's bytes.
    """
    heads, kv_heads, dim, norms = shape
    tokens = len(qkv)
    q = qkv.new_empty(tokens, heads, dim)
    q_norm, k_norm, eps = norms or (qkv, qkv, 0.0)
    group = max(1, NUMBERS // dim)
    _place_heads[(tokens, triton.cdiv(heads + 2 * kv_heads, group))](
        qkv,
        *tables,
        positions,
        slots,
        q_norm,
        k_norm,
        q,
        *cache,
        *cache[0].stride()[:3],
        cache[0].shape[1],
        eps,
        heads,
        kv_heads,
        dim,
        group,
        norms is not None,
        cache[0].dtype == FP8,
        num_warps=2,
        **chain(qkv.device),
    )
    return q


def place_heads_twin(
    qkv: torch.Tensor,
    shape: Shape,
    tables: tuple[torch.Tensor, torch.Tensor],
    positions: torch.Tensor,
    slots: torch.Tensor,
    cache: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """The same in plain torch, on any device."""
    heads, kv_heads, dim, norms = shape
    q, k, v = torch.split(qkv.view(len(qkv), -1, dim), [heads, kv_heads, kv_heads], dim=1)
    if norms is not None:
        q, k = (functional.rms_norm(x, [dim], weight, norms[2]) for x, weight in ((q, norms[0]), (k, norms[1])))
    cos, sin = (table[positions].unsqueeze(1) for table in tables)
    q, k = (torch.addcmul(x * cos, torch.roll(x, dim // 2, -1), sin) for x in (q, k))
    pages, places = slots // cache[0].shape[1], slots % cache[0].shape[1]
    for kept, new in zip(cache, (k, v), strict=True):
        if kept.dtype == FP8:
            kept.view(torch.uint8)[pages, places] = narrow(new).view(torch.uint8)
        else:
            kept[pages, places] = new
    return q
