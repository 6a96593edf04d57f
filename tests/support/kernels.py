"""Every fused kernel against its twin in plain torch, over shapes: on a GPU, or on a CPU in Triton's interpreter.

TRITON_INTERPRET=1 python -m support.kernels        prints what went wrong, by check, as JSON
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Check = Callable[[str], None]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def is_interpreted(device: str) -> bool:
    return device == "cpu"


@check
def draw_equals_its_twin(device: str) -> None:
    from minisgl.kernels.draw import draw, twin_scores

    shapes = [(1, 5), (3, 2500), (12, 9000)]
    if not is_interpreted(device):
        shapes += [(1, 151936), (256, 151936), (9, 128256)]
    for rows, vocab in shapes:
        for dtype in (torch.float32, torch.bfloat16):
            torch.manual_seed(rows)
            logits = (torch.randn(rows, vocab + 16, device=device) * 4).to(dtype)[:, :vocab]
            temperature = torch.rand(rows, device=device) * 2
            temperature[::3] = 0
            seeds = torch.randint(-(2**62), 2**62, (rows,), device=device)
            positions = torch.arange(rows, device=device) * 100
            owners = torch.randperm(rows + 3, device=device)[:rows]
            last = torch.full((rows + 3,), -7, device=device)
            tokens, failed = draw(logits, temperature, seeds, positions, last, owners).long()
            scores, expected_failed = twin_scores(logits, temperature, seeds, positions)
            assert not failed.any()
            assert not expected_failed.any()
            # Logarithms differ in their last bits: another token may win where two are as good.
            best, chosen = scores.amax(dim=1), scores.gather(1, tokens.unsqueeze(1)).squeeze(1)
            assert (best - chosen).abs().max() < 1e-4
            greedy = temperature == 0
            assert torch.equal(tokens[greedy], logits[greedy].float().argmax(dim=1))
            assert torch.equal(last[owners], tokens)
            assert int((last == -7).sum()) == 3


@check
def draw_depends_on_nothing_but_its_row(device: str) -> None:
    from minisgl.kernels.draw import draw

    rows, vocab = 11, 6000
    logits = torch.randn(rows, vocab, device=device).bfloat16()
    columns = [
        torch.full((rows,), 0.8, device=device),
        torch.arange(rows, device=device),
        torch.full((rows,), 9, device=device),
    ]
    last, owners = torch.zeros(rows, dtype=torch.int64, device=device), torch.arange(rows, device=device)
    together = draw(logits, *columns, last, owners)[0].tolist()  # cut into large chunks
    alone = [
        int(draw(logits[i : i + 1], *(x[i : i + 1] for x in columns), last, owners[:1])[0, 0]) for i in range(rows)
    ]
    whole = draw(logits.float(), *columns, last, owners)[0].tolist()
    assert together == alone == whole


@check
def draw_tells_which_rows_failed(device: str) -> None:
    from minisgl.kernels.draw import draw, draw_twin

    rows, vocab = 6, 2100
    logits = torch.randn(rows, vocab, device=device)
    logits[1, 2050] = float("nan")
    logits[2, 17] = float("inf")
    logits[3] = float("-inf")
    logits[4, 1:] = float("-inf")  # ruled out: fine
    logits[5] = float("nan")
    for heat in (0.0, 0.7):
        columns = (
            torch.full((rows,), heat, device=device),
            torch.arange(rows, device=device),
            torch.zeros(rows, dtype=torch.int64, device=device),
        )
        owners = torch.arange(rows, device=device)
        drawn = [f(logits, *columns, owners.clone(), owners) for f in (draw, draw_twin)]
        for tokens, failed in drawn:
            assert failed.tolist() == [0, 1, 1, 1, 0, 1]
            assert tokens[4] == 0
            assert ((tokens >= 0) & (tokens < vocab)).all(), "an embedding is looked up for it, whatever it is"


def close(ours: torch.Tensor, twin: torch.Tensor, steps: float = 1.0) -> None:
    """Equal but for the last bit of 16, or a few."""
    bit = 2.0**-7 if ours.dtype == torch.bfloat16 else 2.0**-10
    torch.testing.assert_close(ours, twin, rtol=steps * bit, atol=steps * bit)


@check
def add_norm_equals_its_twin(device: str) -> None:
    from minisgl.kernels.norm import add_norm, add_norm_twin

    for tokens, size in [(1, 576), (3, 1024), (2, 96), (2, 5120), (1, 8192)] + [(500, 4096)] * (device == "cuda"):
        for dtype in (torch.bfloat16, torch.float16):
            x, delta = torch.randn(2, tokens, size, device=device).to(dtype)
            weight = torch.randn(size, device=device).to(dtype)
            kept = x.clone()
            close(add_norm(x, delta, weight, 1e-6), add_norm_twin(kept, delta, weight, 1e-6), 2)
            # The interpreter cuts a bfloat16 off where a GPU rounds it.
            assert torch.equal(x, kept) or is_interpreted(device)
            close(x, kept)


@check
def gate_equals_its_twin(device: str) -> None:
    from minisgl.kernels.gate import gate, gate_twin

    for tokens, width in [(1, 1536), (3, 96), (2, 3072)] + [(300, 17408)] * (device == "cuda"):
        for dtype in (torch.bfloat16, torch.float16):
            both = torch.randn(tokens, 2 * width, device=device).to(dtype) * 4
            close(gate(both), gate_twin(both), 2)


def pages_of(num_pages: int, page_size: int, heads: int, dim: int, *, by_head: bool, **kind: Any) -> torch.Tensor:
    """Two times keys and values [2, 2, pages, page_size, heads, dim], all zero; in memory token by token or by head."""
    if by_head:
        return torch.zeros(2, 2, num_pages, heads, page_size, dim, **kind).transpose(3, 4)
    return torch.zeros(2, 2, num_pages, page_size, heads, dim, **kind)


@check
def place_heads_equals_its_twin(device: str) -> None:
    from minisgl.kernels.heads import Shape, fits, place_heads, place_heads_twin

    shapes = [(16, 8, 128), (9, 3, 64), (4, 1, 256), (5, 5, 16), (3, 1, 32)]
    tokens, context, num_slots, page_size = 3 if is_interpreted(device) else 300, 40, 512, 16
    for heads, kv_heads, dim in shapes:
        assert fits(dim)
        for normed, by_head in ((False, True), (True, False)):
            random = {"device": device, "dtype": torch.bfloat16}
            qkv = torch.randn(tokens, (heads + 2 * kv_heads) * dim, **random)
            weights = torch.randn(2, dim, **random)
            shape = Shape(heads, kv_heads, dim, (weights[0], weights[1], 1e-6) if normed else None)
            angles = torch.rand(context, dim // 2, device=device) * 6
            cos = torch.cat((angles.cos(), angles.cos()), dim=-1).bfloat16()
            sin = torch.cat((-angles.sin(), angles.sin()), dim=-1).bfloat16()
            positions = torch.randint(0, context, (tokens,), device=device)
            slots = torch.randperm(num_slots, device=device)[:tokens]
            caches = pages_of(num_slots // page_size, page_size, kv_heads, dim, by_head=by_head, **random)
            ours, twin = (
                function(qkv, shape, (cos, sin), positions, slots, (cache[0], cache[1]))
                for function, cache in zip((place_heads, place_heads_twin), caches, strict=True)
            )
            # The twin rounds once more, between the two products of a rotation.
            close(ours, twin, 4)
            close(caches[0][0], caches[1][0], 4)
            assert torch.equal(caches[0][1], caches[1][1])
            rest = torch.ones(num_slots, dtype=torch.bool, device=device)
            rest[slots] = False
            assert not caches[0].flatten(1, 2)[:, rest].any(), "other slots are left alone"


@check
def place_heads_narrows_as_its_twin(device: str) -> None:
    from minisgl.kernels.heads import Shape, place_heads, place_heads_twin
    from minisgl.kvcache.pool import FP8

    tokens, heads, kv_heads, dim = 3 if is_interpreted(device) else 300, 4, 2, 64
    qkv = torch.randn(tokens, (heads + 2 * kv_heads) * dim, device=device).bfloat16() * 8
    qkv[:, -5:], qkv[:, -10:-5] = 1000.0, -460.0  # values beyond the largest number
    tables = (torch.ones(8, dim, device=device).bfloat16(), torch.zeros(8, dim, device=device).bfloat16())
    positions = torch.arange(tokens, device=device) % 8
    slots = torch.randperm(512, device=device)[:tokens]
    shape = Shape(heads, kv_heads, dim, None)
    caches = pages_of(32, 16, kv_heads, dim, by_head=True, dtype=torch.uint8, device=device).view(FP8)
    for function, cache in zip((place_heads, place_heads_twin), caches, strict=True):
        function(qkv, shape, tables, positions, slots, (cache[0], cache[1]))
    ours, twin = (cache.float() for cache in caches)
    # The interpreter loses the carry where rounding reaches the next power of two.
    torch.testing.assert_close(ours, twin, rtol=0.5 if is_interpreted(device) else 0, atol=2.0**-8)
    assert ours[1].amax() == 448
    assert ours[1].amin() == -448
    assert torch.isfinite(ours).all()


@check
def decode_equals_its_twin(device: str) -> None:
    from minisgl.kernels.decode import decode, decode_twin
    from minisgl.kvcache.pool import FP8, narrow

    shapes = [(4, 2, 32, 16, [5, 70, 1]), (5, 1, 64, 64, [130])]
    if not is_interpreted(device):
        lengths = np.random.default_rng(0).integers(1, 1600, 200).tolist()
        shapes += [(16, 8, 128, 64, lengths), (40, 8, 128, 16, lengths), (32, 8, 128, 1, lengths[:40])]
    for heads, kv_heads, dim, page_size, lengths in shapes:
        used = [-(-length // page_size) for length in lengths]
        num_pages = sum(used)
        q = torch.randn(len(lengths), heads, dim, device=device).bfloat16() * 2
        cache = [narrow(torch.randn(num_pages + 1, page_size, kv_heads, dim, device=device)) for _ in range(2)]
        if len(lengths) > 1:  # head by head, as a GPU's cache lies
            cache = [part.view(torch.uint8).transpose(1, 2).contiguous().transpose(1, 2).view(FP8) for part in cache]
        for part in cache:
            part.view(torch.uint8)[-1] = 0  # the empty page
        bounds = torch.tensor([0, *used], device=device).cumsum(0).int()
        last = torch.tensor([(length - 1) % page_size + 1 for length in lengths], dtype=torch.int32, device=device)
        paged = torch.randperm(num_pages, device=device).int(), bounds, last
        expected = decode_twin(q, *cache, paged).float()
        for parts in (1, 3):
            ours = decode(q, *cache, paged, num_pages, parts).float()
            # In the interpreter a bfloat16 is cut off, not rounded.
            assert float((ours - expected).norm() / expected.norm()) < 1e-2


@check
def spread_makes_a_line_for_each_request(device: str) -> None:
    from minisgl.kernels.spread import spread

    used = [2, 1, 130]
    bounds = torch.tensor([0, 2, 3, 133], dtype=torch.int32, device=device)
    last = torch.tensor([4, 1, 2], dtype=torch.int32, device=device)
    pages = torch.randperm(200, device=device).int()
    table, lengths = spread((pages, bounds, last), 140, 4)
    assert lengths.tolist() == [8, 1, 518]
    for row, count in enumerate(used):
        assert torch.equal(table[row, :count], pages[int(bounds[row]) :][:count])


@check
def gemv_equals_its_twin(device: str) -> None:
    from minisgl.kernels.gemv import gemv, gemv_twin

    shapes = [(40, 96), (130, 1024), (7, 1500), (24, 2048)]
    if not is_interpreted(device):
        shapes += [(4096, 1024), (6144, 1024), (1024, 3072), (151936, 1024), (34816, 5120), (5120, 17408)]
    for outs, ins in shapes:
        for biased in (False, True):
            x = torch.randn(1, ins, device=device).bfloat16()
            weight = (torch.randn(outs, ins, device=device) * ins**-0.5).bfloat16()
            bias = torch.randn(outs, device=device).bfloat16() if biased else None
            close(gemv(x, weight, bias), gemv_twin(x, weight, bias), 2)


@check
def skinny_equals_its_twin(device: str) -> None:
    from minisgl.kernels.skinny import skinny, skinny_twin

    shapes = [(40, 96), (130, 512), (7, 320)]
    if not is_interpreted(device):
        shapes += [(4096, 1024), (1024, 3072), (151936, 1024), (34816, 5120), (5120, 17408)]
    for outs, ins in shapes:
        for rows in (1, 5, 8, 16):
            for biased in (False, True):
                x = torch.randn(rows, ins, device=device).bfloat16()
                weight = (torch.randn(outs, ins, device=device) * ins**-0.5).bfloat16()
                bias = torch.randn(outs, device=device).bfloat16() if biased else None
                close(skinny(x, weight, bias), skinny_twin(x, weight, bias), 2)


@check
def placed_rows_equal_their_twins(device: str) -> None:
    from minisgl.kernels.rows import place_rows, place_rows_twin

    for bounds in ([3, 5, 9], [0, 4], [2, 2], [7, 20]):
        queries = torch.tensor(bounds, dtype=torch.int32, device=device)
        for shifted in (False, True):
            source = torch.randn(20, 3, 700, device=device)
            ours, twin = torch.zeros_like(source), torch.zeros_like(source)
            place_rows(source, ours, queries, shifted=shifted)
            place_rows_twin(source, twin, queries, shifted=shifted)
            assert torch.equal(ours, twin), (bounds, shifted)


@check
def fill_in_equals_its_twin(device: str) -> None:
    from minisgl.kernels.known import fill_in, fill_in_twin

    last = torch.randint(0, 1000, (40,), device=device)
    for count in (1, 256, 701):
        rows, tokens = torch.randint(0, 40, (2 * count,), device=device).split(count)  # of one buffer, as a graph's are
        tokens[::3] = -1
        kept = tokens.clone()
        new = fill_in(tokens, rows, last)
        assert torch.equal(new, fill_in_twin(tokens, rows, last))
        assert torch.equal(tokens, kept)
        assert new.data_ptr() != tokens.data_ptr()
        assert int(new.min()) >= 0


def main() -> None:
    wrong = {}
    for name, function in CHECKS.items():
        try:
            function("cpu")
        except Exception:
            wrong[name] = traceback.format_exc()
    json.dump(wrong, sys.stdout)


if __name__ == "__main__":
    main()
