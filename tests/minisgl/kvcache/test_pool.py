"""The tensors of the KV cache: what is stored by slot is gathered by page."""

import pytest
import torch

from minisgl.kvcache.pool import FP8, KVPool

pytestmark = pytest.mark.cpu


def make(cache_dtype: torch.dtype | None = None, kv_heads: int = 1, **how: bool) -> KVPool:
    shape = {"num_layers": 2, "num_pages": 3, "page_size": 2, "num_kv_heads": kv_heads, "head_dim": 2}
    return KVPool(**shape, dtype=torch.float32, device="cpu", cache_dtype=cache_dtype, **how)


@pytest.mark.parametrize("cache_dtype", [None, FP8])
def test_how_a_page_lies_in_memory_changes_nothing_that_is_read(cache_dtype: torch.dtype | None) -> None:
    by_token, by_head = (make(cache_dtype, 3, by_head=which) for which in (False, True))
    assert by_token.k.is_contiguous()
    assert by_head.k.transpose(2, 3).is_contiguous()
    assert by_head.k.shape == by_token.k.shape
    slots, k = torch.tensor([5, 0, 2]), torch.randn(3, 6)
    k[2, 1] = torch.nan
    pages = torch.tensor([2, by_token.empty_page, 0, 1])
    for pool in (by_token, by_head):
        pool.store(1, slots, k, -k)
        pool.scrub(torch.tensor([1]))
    for expected, got in zip(by_token.gather(1, pages), by_head.gather(1, pages), strict=True):
        assert torch.equal(expected, got)
        assert expected.abs().sum() > 0
    into = torch.empty(2, 4, 12)
    by_head.gather(1, pages, (into[0], into[1]))
    assert torch.equal(into[0], by_token.gather(1, pages)[0])
    assert (by_head.num_bytes, by_head.token_bytes) == (by_token.num_bytes, by_token.token_bytes)


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


def test_a_cache_in_fp8_takes_a_quarter_of_float32_and_gives_the_nearest_numbers_that_it_has() -> None:
    pool = make(FP8)
    assert pool.num_bytes * 4 == make().num_bytes
    pool.store(1, torch.tensor([0, 1]), torch.tensor([[1.0, 1.07], [0.3, -17.0]]), torch.zeros(2, 2))
    keys, _ = pool.gather(1, torch.tensor([0]))
    assert keys.dtype == torch.float32
    assert keys.tolist() == [[1.0, 1.125, 0.3125, -16.0]], "three bits behind the first one"
    into = torch.full((1, 4), 7.0), torch.full((1, 4), 7.0)
    pool.gather(1, torch.tensor([0]), into)
    assert torch.equal(into[0], keys)


def test_what_fp8_cannot_hold_becomes_its_largest_number() -> None:
    pool = make(FP8)
    pool.store(0, torch.tensor([0]), torch.tensor([[1e6, -470.0]]), torch.tensor([[float("inf"), 448.0]]))
    keys, values = pool.gather(0, torch.tensor([0]))
    assert keys[0, :2].tolist() == [448, -448]
    assert values[0, :2].tolist() == [448, 448]


def test_a_failed_request_leaves_no_nan_in_fp8_either() -> None:
    pool = make(FP8)
    pool.store(0, torch.tensor([2, 3]), torch.tensor([[float("nan"), 2.0], [3.0, 448.0]]), torch.ones(2, 2))
    pool.scrub(torch.tensor([1]))
    assert pool.gather(0, torch.tensor([1]))[0].tolist() == [[0, 2, 3, 448]]


def test_scrubbing_leaves_numbers_and_removes_the_rest() -> None:
    pool = make()
    pool.k[:, 1] = torch.tensor([float("nan"), float("inf")])
    pool.v[:, 1], pool.v[:, 2] = 3.0, float("nan")
    pool.scrub(torch.tensor([1]))
    assert not pool.k.any()
    assert (pool.v[:, 1] == 3).all()
    assert pool.v[:, 2].isnan().all(), "other pages are left alone"
