"""The tensors of the KV cache: what is stored by slot is gathered by page."""

import pytest
import torch

from minisgl.kvcache.pool import KVPool

pytestmark = pytest.mark.cpu


def make() -> KVPool:
    return KVPool(num_layers=2, num_pages=3, page_size=2, num_kv_heads=1, head_dim=2, dtype=torch.float32, device="cpu")


def test_what_is_stored_by_slot_is_gathered_by_page() -> None:
    pool = make()
    k = torch.arange(4.0).view(2, 2)
    pool.store(1, torch.tensor([5, 0]), k, -k)
    keys, values = pool.gather(1, torch.tensor([0, 2]))
    assert keys.tolist() == [[2, 3, 0, 0], [0, 0, 0, 1]]
    assert torch.equal(values, -keys)
    assert not pool.k[0].any(), "other layers are left alone"


def test_gathering_into_given_memory_is_gathering() -> None:
    pool = make()
    pool.store(0, torch.arange(6), torch.randn(6, 2), torch.randn(6, 2))
    pages = torch.tensor([2, pool.empty_page, 1])
    into = torch.full((3, 4), 7.0), torch.full((3, 4), 7.0)
    for expected, got in zip(pool.gather(0, pages), pool.gather(0, pages, into), strict=True):
        assert torch.equal(expected, got)
    assert not into[0][1].any(), "the empty page stays zero"


def test_scrubbing_leaves_numbers_and_removes_the_rest() -> None:
    pool = make()
    pool.k[:, 1] = torch.tensor([float("nan"), float("inf")])
    pool.v[:, 1], pool.v[:, 2] = 3.0, float("nan")
    pool.scrub(torch.tensor([1]))
    assert not pool.k.any()
    assert (pool.v[:, 1] == 3).all()
    assert pool.v[:, 2].isnan().all(), "other pages are left alone"
