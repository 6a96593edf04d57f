"""FlashAttention's side of the contract, with a kernel in plain torch in its place."""

from pathlib import Path

import numpy as np
import pytest
import torch

from minisgl.attention import flash
from minisgl.attention.fa import FlashAttention
from minisgl.attention.pair import PairAttention
from minisgl.attention.torch import TorchAttention
from minisgl.kvcache.pool import KVPool

pytestmark = pytest.mark.cpu

HEADS, KV_HEADS, DIM, PAGE = 4, 2, 8, 4
NEVER = 99  # a page that no pool has: it must not be read


def twin(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    queries: torch.Tensor,
    lengths: torch.Tensor,
    table: torch.Tensor,
    most: int,
    out: torch.Tensor,
) -> None:
    """`flash.Flash`, request by request."""
    for i, length in enumerate(lengths.tolist()):
        first, end = queries[i : i + 2].tolist()
        assert end - first <= most
        pages = table[i, : -(-length // keys.shape[1])].long()
        k, v = (x[pages].flatten(0, 1)[:length].repeat_interleave(HEADS // KV_HEADS, dim=1) for x in (keys, values))
        scores = torch.einsum("qhd,khd->hqk", q[first:end], k) * DIM**-0.5
        hidden = torch.arange(length) > torch.arange(length - (end - first), length)[:, None]
        chances = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        out[first:end] = torch.einsum("hqk,khd->qhd", chances, v)


@pytest.mark.parametrize("is_pair", [False, True])
@pytest.mark.parametrize("parts", [[(6, 1), (0, 1)], [(0, 5), (3, 9)], [(6, 1), (11, 1), (0, 7), (4, 2)]])
def test_it_attends_as_plain_torch(parts: list[tuple[int, int]], is_pair: bool) -> None:
    torch.manual_seed(0)
    pools = [
        KVPool(
            num_layers=1,
            num_pages=40,
            page_size=PAGE,
            num_kv_heads=KV_HEADS,
            head_dim=DIM,
            dtype=torch.float32,
            device="cpu",
        )
        for _ in range(2)
    ]
    for cache in ("k", "v"):
        getattr(pools[0], cache).normal_()
        getattr(pools[1], cache).copy_(getattr(pools[0], cache))
    ours = FlashAttention(pools[0], HEADS, twin)
    backend = PairAttention(ours, FlashAttention(pools[0], HEADS, twin)) if is_pair else ours
    reference = TorchAttention(pools[1], HEADS)
    starts, counts = (np.array(column, np.int32) for column in zip(*parts, strict=True))
    used = -(-(starts + counts) // PAGE)
    pages = np.random.default_rng(0).permutation(40)[: len(parts) * 5].astype(np.int32).reshape(-1, 5)
    ours_pages = np.where(np.arange(5) < used[:, None], pages, NEVER).astype(np.int32)
    tokens = int(counts.sum())
    q, k, v = (torch.randn(tokens, heads, DIM) for heads in (HEADS, KV_HEADS, KV_HEADS))
    backend.begin(starts, counts, ours_pages)
    reference.begin(starts, counts, pages)
    expected = reference.attend(0, q, k, v)
    assert torch.allclose(backend.attend(0, q, k, v), expected, atol=1e-5)
    assert torch.allclose(backend.attend_stored(0, q), expected, atol=1e-5)
    assert torch.equal(pools[0].k, pools[1].k)


def test_the_best_library_is_found_without_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert flash.installed() == []
    (tmp_path / "flash_attn/cute").mkdir(parents=True)
    assert flash.installed() == ["flash-attn-4"]
    (tmp_path / "flash_attn/__init__.py").write_text("raise ImportError('not without a GPU')")
    (tmp_path / "flash_attn/flash_attn_interface.py").touch()
    (tmp_path / "flash_attn_interface.py").touch()
    assert flash.installed() == ["flash-attn-3", "flash-attn-4", "flash-attn"]


@pytest.mark.parametrize(
    ("name", "major", "page_size", "problem"),
    [
        ("flash-attn-3", 9, 1, None),
        ("flash-attn-3", 8, 1, "compute capability 9 only"),
        ("flash-attn-4", 9, 16, None),
        ("flash-attn-4", 10, 16, None),
        ("flash-attn-4", 8, 16, "9 to 11 only"),
        ("flash-attn", 8, 16, "--page-size 256"),
        ("flash-attn", 8, 256, None),
        ("flash-attn", 7, 256, "needs compute capability 8"),
    ],
)
def test_each_library_says_where_it_does_not_serve(name: str, major: int, page_size: int, problem: str | None) -> None:
    found = flash.problem(name, major, page_size)
    assert found is None if problem is None else problem in str(found)
