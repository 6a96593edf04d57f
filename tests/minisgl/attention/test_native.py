"""Decode attention in C equals the torch one; and what is wrong in one request stays there."""

import numpy as np
import pytest
import torch

from minisgl.attention.backends import build
from minisgl.attention.base import AttentionBackend
from minisgl.errors import StartError
from minisgl.kernels import compiled, native
from minisgl.kvcache.pool import KVPool
from minisgl.termination import Reason

pytestmark = [
    pytest.mark.cpu,
    pytest.mark.skipif(native.compiler() is None, reason="this machine has no C compiler"),
]
ROWS, WIDTH = 5, 9


def pool_of(kv_heads: int, dim: int, page_size: int, dtype: torch.dtype) -> KVPool:
    pool = KVPool(
        num_layers=2,
        num_pages=ROWS * WIDTH,
        page_size=page_size,
        num_kv_heads=kv_heads,
        head_dim=dim,
        dtype=dtype,
        device="cpu",
    )
    generator = torch.Generator().manual_seed(1)
    for cache in (pool.k, pool.v):
        cache.copy_(torch.randn(cache.shape, generator=generator))
    return pool


def attend(backend: AttentionBackend, starts: list[int], heads: int, kv_heads: int, dim: int) -> torch.Tensor:
    """Both layers of one step; queries, keys and values are views with gaps, as the model has them."""
    pages = np.random.default_rng(0).permutation(ROWS * WIDTH).astype(np.int32).reshape(ROWS, WIDTH)
    backend.begin(np.array(starts, np.int32), np.ones(ROWS, np.int32), pages)
    qkv = torch.randn(ROWS, heads + 2 * kv_heads, dim, generator=torch.Generator().manual_seed(2))
    q, k, v = qkv.to(backend.pool.k.dtype).split([heads, kv_heads, kv_heads], dim=1)
    return torch.stack([backend.attend(layer, q, k, v) for layer in range(2)])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(9, 3, 64), (4, 2, 16), (16, 8, 128), (8, 8, 96), (7, 1, 256)])
@pytest.mark.parametrize("page_size", [1, 16])
def test_it_equals_torch(
    dtype: torch.dtype, tolerance: float, heads: int, kv_heads: int, dim: int, page_size: int
) -> None:
    pools = [pool_of(kv_heads, dim, page_size, dtype) for _ in range(2)]
    starts = [0, 3, 5, 8, 1] if page_size == 1 else [0, 15, 16, 100, 143]
    ours, reference = (
        attend(build(name, pool, heads), starts, heads, kv_heads, dim).double()
        for name, pool in zip(("native", "torch"), pools, strict=True)
    )
    assert (ours - reference).norm() / reference.norm() < tolerance
    assert torch.equal(pools[0].k, pools[1].k)
    assert torch.equal(pools[0].v, pools[1].v)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["k", "v"])
def test_poison_in_one_request_shows_there_and_nowhere_else(poison: float, where: str) -> None:
    pools = [pool_of(2, 16, 16, torch.float32) for _ in range(2)]
    page = int(np.random.default_rng(0).permutation(ROWS * WIDTH)[1 * WIDTH])  # the second request's first page
    getattr(pools[0], where)[:, page, 3] = poison
    poisoned, clean = (attend(build("native", pool, 4), [9, 20, 30, 1, 40], 4, 2, 16) for pool in pools)
    assert not torch.isfinite(poisoned[:, 1]).all(dim=-1).any()
    others = [0, 2, 3, 4]
    assert torch.equal(poisoned[:, others], clean[:, others])


def test_large_scores_do_not_overflow() -> None:
    pools = [pool_of(2, 16, 16, torch.float32) for _ in range(2)]
    for pool in pools:
        pool.k.mul_(1e4)
    ours, reference = (
        attend(build(name, pool, 4), [9, 20, 30, 1, 40], 4, 2, 16)
        for name, pool in zip(("native", "torch"), pools, strict=True)
    )
    torch.testing.assert_close(ours, reference, atol=1e-4, rtol=1e-4)


def test_a_machine_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "compiler", lambda: None)
    monkeypatch.setattr(native, "compiler", lambda: None)
    native.library.cache_clear()
    with pytest.raises(StartError, match=r"needs a C compiler.*--attention-backend torch") as raised:
        native.library()
    assert raised.value.reason is Reason.DEVICE_UNAVAILABLE


def test_what_the_compiler_does_not_like_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "FLAGS", ("-O3", "--no-such-flag"))
    native.library.cache_clear()
    with pytest.raises(StartError, match=r"could not compile our kernels .*no-such-flag.*--attention-backend torch"):
        native.library()
