"""The reference backend against the formula, on geometries that a scheduler produces."""

import numpy as np
import pytest
import torch

from minisgl.attention.torch import TorchAttention
from minisgl.kvcache.pool import KVPool

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
    ],
    ids=str,
)
def test_every_token_attends_to_its_own_past(requests: list[tuple[int, int]], page_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [start + count for start, count in requests]
    pool = KVPool(
        num_layers=2,
        num_pages=200,
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
    numbers = np.random.default_rng(0).permutation(200)[: len(requests) * widest].reshape(len(requests), widest)
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
