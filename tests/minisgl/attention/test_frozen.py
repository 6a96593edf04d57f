"""Captured steps put every request before the kernel that it is for: checked with kernels in plain torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from minisgl.attention.base import AttentionBackend, Half, Part
from minisgl.attention.frozen import freeze
from minisgl.attention.geometry import Paged
from minisgl.attention.torch import TorchAttention
from minisgl.kvcache.pool import KVPool
from minisgl.plan.shapes import Shape, decode_shapes, mixed_shapes, smallest

pytestmark = pytest.mark.cpu

HEADS, DIM, PAGE, PAGES, MOST_PAGES = 2, 4, 4, 200, 16
GARBAGE = 1000.0


class PlainHalf(Half):
    """Attends what the device's words say, request by request; a decode part's padding writes garbage."""

    def __init__(self, pool: KVPool, part: Part) -> None:
        self.pool, self.part = pool, part

    def plan(self, host: Paged, lengths: torch.Tensor, pinned: torch.Tensor) -> None:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(host[:3], self.part.device[:3], strict=True))
        self.lengths = lengths.clone()

    def prepare(self) -> None:
        self.table = [self.part.device.bounds[i : i + 2].tolist() for i in range(len(self.part.device.last))]

    def attend(self, layer: int, q: torch.Tensor, out: torch.Tensor) -> None:
        device, keys, values = self.part.device, self.pool.k[layer], self.pool.v[layer]
        for i, (first, end) in enumerate(self.table):
            length = (end - first - 1) * PAGE + int(device.last[i])
            assert length == int(self.lengths[i])
            pages = device.indices[first:end].long()
            k, v = (x[pages].flatten(0, 1)[:length] for x in (keys, values))
            rows = slice(*device.queries[i : i + 2].tolist())
            count = rows.stop - rows.start
            if self.part.is_decode and pages.tolist() == [self.pool.empty_page]:
                out[rows] = GARBAGE
                continue
            scores = torch.einsum("qhd,khd->hqk", q[rows], k) * DIM**-0.5
            hidden = torch.arange(length) > torch.arange(length - count, length)[:, None]
            out[rows] = torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v)


class PlainAttention(TorchAttention):
    splits = True

    def halves(self, parts: Sequence[Part]) -> list[Half]:
        return [PlainHalf(self.pool, part) for part in parts]


class Copied:
    """Stands for torch.cuda.Event: a CPU's copies are over when they return."""

    def record(self) -> None: ...

    def synchronize(self) -> None: ...


@pytest.fixture
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("zeros", "empty"):
        make = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *a, make=make, pin_memory=False, **k: make(*a, **k))
    monkeypatch.setattr(torch.cuda, "Event", Copied)


def step(random: np.random.Generator, singles: int, prompts: int, tokens: int) -> Any:
    """Starts, counts and pages of requests, those with one token first."""
    counts = np.ones(singles + prompts, np.int32)
    counts[singles:] = 2
    for _ in range(tokens - int(counts.sum())):
        counts[singles + random.integers(prompts)] += 1
    starts = random.integers(0, MOST_PAGES * PAGE - counts.max() + 1, len(counts)).astype(np.int32)
    pages = random.integers(0, PAGES, (len(counts), MOST_PAGES)).astype(np.int32)
    return starts, counts, pages


def test_every_request_of_random_steps_is_attended_in_the_shape_that_it_takes(on_a_cpu: None) -> None:
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    pool = KVPool(
        num_layers=1,
        num_pages=PAGES,
        page_size=PAGE,
        num_kv_heads=HEADS,
        head_dim=DIM,
        dtype=torch.float32,
        device="cpu",
    )
    pool.k[:, :PAGES].normal_()
    pool.v[:, :PAGES].normal_()
    shapes = decode_shapes(40, shared=True) + mixed_shapes(320, 40)
    assert {shape.is_apart for shape in shapes} == {True, False}
    backend: AttentionBackend = PlainAttention(pool, HEADS)
    frozen = freeze(backend, backend, shapes, MOST_PAGES, [3] * len(shapes))
    reference = TorchAttention(pool, HEADS)
    taken = set()
    for _ in range(120):
        prompts = int(random.integers(0, 9))
        singles = int(random.integers(0 if prompts else 1, 38 - prompts))
        tokens = singles + (int(random.integers(2 * prompts, 24 * prompts + 1)) if prompts else 0)
        at = smallest(shapes, Shape(tokens, singles + prompts, prompts))
        if at is None:
            continue
        taken.add(at)
        starts, counts, pages = step(random, singles, prompts, tokens)
        q = torch.randn(shapes[at].tokens, HEADS, DIM)
        twin = frozen[at]
        turn = twin.open()
        twin.own_hosts[turn][:] = torch.tensor([tokens, singles, prompts])
        twin.bring(turn, starts, counts, pages)
        assert twin.own.tolist() == [tokens, singles, prompts], "the caller's numbers come in the same copy"
        reference.begin(starts, counts, pages)
        slots = twin.slots.clone()
        assert (slots[tokens:] == PAGES * PAGE).all(), "padding is stored in the empty page"
        # What is there already is stored again.
        k, v = (cache[0].flatten(0, 1)[slots[:tokens]].clone() for cache in (pool.k, pool.v))
        expected = reference.attend(0, q[:tokens], k, v)
        assert torch.allclose(twin.attend_stored(0, q)[:tokens], expected, atol=1e-5), shapes[at]
    kinds = {(shapes[at].is_decode, shapes[at].is_apart) for at in taken}
    assert kinds == {(True, False), (False, True), (False, False)}
    assert len(taken) > 10
