"""The reference backend against the formula, on geometries that a scheduler produces."""

import numpy as np
import pytest
import torch

from minisgl.attention.torch import LEAST_FOR_BLOCKS, MOST_AT_ONCE, WORTH_A_CUT, TorchAttention, cut
from minisgl.kvcache.pool import FP8, KVPool, narrow

pytestmark = pytest.mark.cpu

HEADS, KV_HEADS, DIM = 6, 2, 8


def formula(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """One token's heads [heads, dim] over all keys and values so far [length, kv_heads, dim]."""
    out = []
    for head, query in enumerate(q):
        keys, values = k[:, head // (HEADS // KV_HEADS)], v[:, head // (HEADS // KV_HEADS)]
        out.append((keys @ query / DIM**0.5).softmax(dim=0) @ values)
    return torch.cat(out)


@pytest.mark.parametrize("page_size", [1, 4, 16])
@pytest.mark.parametrize(
    "requests",
    [
        [(0, 1)],
        [(0, 5)],
        [(7, 1), (7, 1)],
        [(3, 1), (40, 1), (0, 1)],
        [(12, 7)],
        [(9, 1), (31, 1), (0, 6), (16, 16), (5, 2)],
        [(2, 1), (700, 1), (30, 1), (650, 1), (0, 3)],
    ],
    ids=str,
)
def test_every_token_attends_to_its_own_past(requests: list[tuple[int, int]], page_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [start + count for start, count in requests]
    num_pages = len(requests) * max(lengths)
    pool = KVPool(
        num_layers=2,
        num_pages=num_pages,
        page_size=page_size,
        num_kv_heads=KV_HEADS,
        head_dim=DIM,
        dtype=torch.float32,
        device="cpu",
    )
    pool.k[:], pool.v[:] = 9.0, 9.0  # what former owners left
    pool.k[:, pool.empty_page], pool.v[:, pool.empty_page] = 0.0, 0.0
    k, v = ([torch.randn(n, KV_HEADS, DIM, generator=generator) for n in lengths] for _ in range(2))
    q = [torch.randn(count, HEADS, DIM, generator=generator) for _, count in requests]

    widest = max(-(-n // page_size) for n in lengths)
    numbers = np.random.default_rng(0).permutation(num_pages)[: len(requests) * widest].reshape(len(requests), widest)
    pages = numbers.astype(np.int32)
    for i, (start, _) in enumerate(requests):
        for position in range(start):
            slot = int(pages[i, position // page_size]), position % page_size
            pool.k[1][slot], pool.v[1][slot] = k[i][position], v[i][position]

    backend = TorchAttention(pool, HEADS)
    starts, counts = (np.array(column, np.int32) for column in zip(*requests, strict=True))
    backend.begin(starts, counts, pages)
    new = [torch.cat([x[i][start:] for i, (start, _) in enumerate(requests)]) for x in (k, v)]
    ours = backend.attend(1, torch.cat(q), *new)
    expected = [
        formula(q[i][j], k[i][: start + j + 1], v[i][: start + j + 1])
        for i, (start, count) in enumerate(requests)
        for j in range(count)
    ]
    torch.testing.assert_close(ours, torch.stack(expected), atol=1e-5, rtol=1e-5)
    assert (pool.k[0] == 9.0).sum() == pool.k[0].numel() - pool.k[0, 0].numel(), "other layers are left alone"


def test_a_cache_in_fp8_is_read_as_it_was_stored() -> None:
    """Equal to attention over keys and values rounded to FP8, whole and in chunks."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(9, HEADS, DIM, generator=generator)
    k, v = (torch.randn(9, KV_HEADS, DIM, generator=generator) for _ in range(2))
    pages = np.array([[2, 0, 1]], np.int32)
    outs = []
    for chunks in ([9], [4, 4, 1]):
        shape = {"num_layers": 1, "num_pages": 3, "page_size": 4, "num_kv_heads": KV_HEADS, "head_dim": DIM}
        pool = KVPool(**shape, dtype=torch.float32, device="cpu", cache_dtype=FP8)
        backend, done, parts = TorchAttention(pool, HEADS), 0, []
        for count in chunks:
            backend.begin(np.array([done], np.int32), np.array([count], np.int32), pages)
            parts.append(backend.attend(0, *(x[done : done + count] for x in (q, k, v))))
            done += count
        outs.append(torch.cat(parts))
    rounded = [narrow(x).float() for x in (k, v)]
    expected = torch.stack([formula(q[i], *(x[: i + 1] for x in rounded)) for i in range(9)])
    for out in outs:
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lengths", [[90, 33, 40], [64] * 4, [900]], ids=str)
def test_all_heads_in_one_product_give_what_each_gives_alone(lengths: list[int]) -> None:
    """The same numbers in bfloat16, which takes that way, and in float32, which does not."""
    heads, kv_heads, dim, size = 8, 4, 64, 16
    outs = []
    for dtype in (torch.bfloat16, torch.float32):
        generator = torch.Generator().manual_seed(0)
        pool = KVPool(
            num_layers=1, num_pages=100, page_size=size, num_kv_heads=kv_heads, head_dim=dim, dtype=dtype, device="cpu"
        )
        for cache in (pool.k, pool.v):
            cache[:, :100] = torch.randn(cache[:, :100].shape, generator=generator).bfloat16()
        q, k, v = (
            torch.randn(len(lengths), n, dim, generator=generator).bfloat16() for n in (heads, kv_heads, kv_heads)
        )
        widest = -(-max(lengths) // size)
        pages = np.random.default_rng(0).permutation(100)[: len(lengths) * widest].reshape(len(lengths), -1)
        backend = TorchAttention(pool, heads)
        backend.begin(np.array(lengths, np.int32) - 1, np.ones(len(lengths), np.int32), pages.astype(np.int32))
        assert len(lengths) * max(lengths) * kv_heads * dim >= LEAST_FOR_BLOCKS or dtype != torch.bfloat16
        outs.append(backend.attend(0, *(x.to(dtype) for x in (q, k, v))).float())
    torch.testing.assert_close(*outs, atol=0.02, rtol=0.02)


def test_rows_of_like_length_are_attended_together() -> None:
    lengths = np.array([40, 1000, 45, 990, 41], np.int32)
    assert [part.tolist() for part in cut(lengths, MOST_AT_ONCE)] == [[1, 3], [2, 4, 0]]
    assert [part.tolist() for part in cut(np.full(5, 64, np.int32), MOST_AT_ONCE)] == [[0, 1, 2, 3, 4]]


def test_a_batch_of_rows_is_bounded_and_every_row_is_in_one() -> None:
    lengths = np.random.default_rng(0).integers(1, 600, 100).astype(np.int32)
    parts = cut(lengths, 2000)
    assert sorted(np.concatenate(parts).tolist()) == list(range(100))
    assert all(len(part) * lengths[part].max() <= 2000 for part in parts)
    assert cut(np.array([9000], np.int32), 2000)[0].tolist() == [0], "one row is never too long"
    assert sum(len(part) * int(lengths[part].max()) for part in parts) < lengths.sum() + WORTH_A_CUT * len(parts) * 2
