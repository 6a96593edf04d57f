"""Each backend's attention equals the plain torch one, over shapes, pages, cached prefixes and batches."""

import numpy as np
import pytest
import torch

from minisgl.attention import backends
from minisgl.kvcache.pool import FP8, KVPool, narrow
from minisgl.plan.shapes import Shape

LAYERS, NUM_TOKENS = 2, 6144
SHAPES = [(16, 8, 128), (40, 8, 128), (32, 8, 128), (14, 2, 64), (9, 3, 64), (8, 8, 128), (16, 4, 256)]
STEPS = {
    "decode": [(length, 1) for length in (0, 1, 15, 16, 63, 300, 1000)],
    "prefill": [(0, 33), (0, 1000), (0, 5)],
    "chunks": [(16, 70), (333, 40), (1, 128)],
    "mixed": [(77, 1), (500, 1), (0, 64), (100, 31)],
}


def relative_error(ours: torch.Tensor, reference: torch.Tensor) -> float:
    return float((ours.double() - reference.double()).norm() / reference.double().norm())


def fill(pool: KVPool) -> None:
    """Random numbers, layer by layer."""
    for cache in (pool.k, pool.v):
        for layer in cache:
            numbers = torch.randn(layer.shape, dtype=torch.bfloat16, device="cuda")
            layer.view(torch.uint8).copy_((narrow(numbers) if pool.is_narrow else numbers).view(torch.uint8))


@pytest.mark.parametrize("name", ["fi", "fa", "fa,fi", "torch,fa"])
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), SHAPES)
@pytest.mark.parametrize("page_size", [1, 16, 64, 256])
def test_a_backend_equals_plain_torch(name: str, heads: int, kv_heads: int, dim: int, page_size: int) -> None:
    compare(name, heads, kv_heads, dim, page_size)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "page_size", "tolerance"),
    [
        (16, 8, 128, 64, 5e-2),  # XQA, which rounds queries and chances to fp8, too
        (16, 8, 128, 16, 5e-2),
        (40, 8, 128, 64, 5e-2),
        (40, 8, 128, 1, 1e-2),
        (14, 2, 64, 16, 1e-2),
        (14, 2, 64, 64, 1e-2),
    ],
)
def test_a_backend_equals_plain_torch_over_a_cache_in_fp8(
    heads: int, kv_heads: int, dim: int, page_size: int, tolerance: float
) -> None:
    compare("fi", heads, kv_heads, dim, page_size, FP8, tolerance)


def compare(
    name: str,
    heads: int,
    kv_heads: int,
    dim: int,
    page_size: int,
    cache_dtype: torch.dtype | None = None,
    tolerance: float = 1e-2,
) -> None:
    torch.manual_seed(0)
    random = np.random.default_rng(0)

    def pool() -> KVPool:
        return KVPool(
            num_layers=LAYERS,
            num_pages=NUM_TOKENS // page_size,
            page_size=page_size,
            num_kv_heads=kv_heads,
            head_dim=dim,
            dtype=torch.bfloat16,
            device="cuda",
            cache_dtype=cache_dtype,
        )

    pools = pool(), pool()
    fill(pools[0])
    pools[1].k.copy_(pools[0].k)
    pools[1].v.copy_(pools[0].v)
    reference, ours = backends.build("torch", pools[0], heads), backends.build(name, pools[1], heads)
    for step, parts in STEPS.items():
        starts, counts = (np.array(column, np.int32) for column in zip(*parts, strict=True))
        width = -(-int((starts + counts).max()) // page_size)
        needed = -(-(starts + counts) // page_size)
        free = random.permutation(NUM_TOKENS // page_size).astype(np.int32)
        pages = np.zeros((len(parts), width), np.int32)
        if needed.sum() > len(free):
            continue  # pages of 256 are too few for this step
        for row, count in enumerate(needed):
            pages[row, :count], free = free[:count], free[count:]
        tokens = int(counts.sum())
        q, k, v = (
            torch.randn(tokens, n, dim, dtype=torch.bfloat16, device="cuda") for n in (heads, kv_heads, kv_heads)
        )
        for backend in (reference, ours):
            backend.begin(starts, counts, pages)
        for layer in range(LAYERS):
            error = relative_error(ours.attend(layer, q, k, v), reference.attend(layer, q, k, v))
            assert error < tolerance, f"{step}, layer {layer}"
    for ours_cache, reference_cache in zip((pools[1].k, pools[1].v), (pools[0].k, pools[0].v), strict=True):
        assert torch.equal(ours_cache.view(torch.uint8), reference_cache.view(torch.uint8))


FROZEN = {
    "decode": (Shape(4, 4, 0), [(5, 1), (200, 1), (33, 1)]),
    "padded decode": (Shape(256, 256, 0), [(5, 1), (200, 1), (33, 1), (16, 1)]),
    "prefill": (Shape(128, 8, 8), [(0, 33), (0, 77)]),
    "whole prefill": (Shape(128, 8, 8), [(0, 128)]),
    "chunks": (Shape(512, 8, 8), [(64, 100), (17, 300)]),
    "few": (Shape(128, 8, 8), [(5, 1), (200, 1), (0, 100)]),
    "many": (Shape(320, 256, 32, True), [(5, 1), (200, 1), (33, 1), (0, 200), (70, 20)]),
    "many, few tokens": (Shape(192, 96, 32, True), [(5, 1), (200, 1), (33, 1), (0, 100), (400, 20), (1, 3)]),
    "a long past": (Shape(64, 8, 8), [(600, 30)]),
    "a long past beside others": (Shape(128, 64, 16), [(5, 1), (200, 1), (600, 30)]),
    "many without singles": (Shape(320, 256, 32, True), [(0, 200), (70, 20)]),
    "few tokens without singles": (Shape(192, 96, 32, True), [(0, 100), (70, 20)]),
    "one far longer than all": (Shape(64, 64, 0, True), [(5, 1), (639, 1), (33, 1), (16, 1)]),
    "many whose pasts are cut": (Shape(256, 256, 0, True), [(5, 1), (200, 1), (33, 1), (639, 1)]),
    "one far longer beside prompts": (Shape(128, 64, 32, True), [(5, 1), (639, 1), (0, 40), (70, 20)]),
    "none is longer than others": (Shape(64, 64, 0), [(300, 1), (301, 1)]),
}


@pytest.mark.parametrize(
    ("name", "heads", "kv_heads", "dim", "cache_dtype"),
    [
        ("fi", 16, 8, 128, None),
        ("fi", 14, 2, 64, None),
        ("fi", 16, 4, 256, None),
        ("fi", 16, 8, 128, FP8),
        ("fi", 14, 2, 64, FP8),
        ("fa", 16, 8, 128, None),
        ("fa", 14, 2, 64, None),
        ("fa,fi", 16, 8, 128, None),
        ("fa,fi", 40, 8, 128, None),
        ("fi,fa", 16, 8, 128, None),
    ],
)
@pytest.mark.parametrize("page_size", [16, 128])
def test_frozen_steps_equal_eager_ones(
    name: str, heads: int, kv_heads: int, dim: int, cache_dtype: torch.dtype | None, page_size: int
) -> None:
    num_pages = NUM_TOKENS // page_size
    pool = KVPool(
        num_layers=2,
        num_pages=num_pages,
        page_size=page_size,
        num_kv_heads=kv_heads,
        head_dim=dim,
        dtype=torch.bfloat16,
        device="cuda",
        cache_dtype=cache_dtype,
    )
    fill(pool)
    eager = backends.build(name, pool, heads)
    most_pages = -(-640 // page_size)
    frozen = eager.freeze([shape for shape, _ in FROZEN.values()], most_pages, [10] * len(FROZEN))
    for _ in range(2):  # each one's plan comes after another's, in memory that they share
        for twin, (case, ((tokens, *_), parts)) in zip(frozen, FROZEN.items(), strict=True):
            starts, counts = (np.array(column, np.int32) for column in zip(*parts, strict=True))
            shuffled = np.random.default_rng(1).permutation(num_pages).astype(np.int32)
            pages = shuffled[: len(parts) * most_pages].reshape(-1, most_pages)
            q, k, v = (
                torch.randn(tokens, n, dim, dtype=torch.bfloat16, device="cuda") for n in (heads, kv_heads, kv_heads)
            )
            real = int(counts.sum())
            eager.begin(starts, counts, pages)
            expected = [eager.attend(layer, q[:real], k[:real], v[:real]).clone() for layer in range(2)]
            twin.begin(starts, counts, pages)
            tolerance = 5e-2 if cache_dtype is not None else 1e-2
            for layer in range(2):
                assert relative_error(twin.attend(layer, q, k, v)[:real], expected[layer]) < tolerance, case
