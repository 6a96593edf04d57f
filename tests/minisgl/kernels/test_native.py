"""The CPU's kernels in C beside the formulas in torch."""

import pytest
import torch
from torch.nn import functional

from minisgl.kernels import native
from minisgl.kernels.native import Kernels
from minisgl.layers.rotary import Rotary

pytestmark = [
    pytest.mark.cpu,
    pytest.mark.skipif(native.compiler() is None, reason="this machine has no C compiler"),
]
TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 8e-3}


def drawn(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_near(ours: torch.Tensor, reference: torch.Tensor) -> None:
    error = (ours.double() - reference.double()).norm() / reference.double().norm()
    assert error < TOLERANCES[ours.dtype]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("rows", "size"), [(1, 64), (8, 576), (3, 100)])
class TestPasses:
    def test_sum_and_norm(self, dtype: torch.dtype, rows: int, size: int) -> None:
        x, delta, weight = (
            drawn(*shape, dtype=dtype, seed=i) for i, shape in enumerate([(rows, size)] * 2 + [(size,)])
        )
        expected_x = x.float() + delta.float()
        normed = Kernels(dtype).add_norm(x, delta, weight, 1e-5)
        assert_near(x, expected_x)
        assert_near(normed, functional.rms_norm(expected_x, [size], weight.float(), 1e-5))

    def test_gate(self, dtype: torch.dtype, rows: int, size: int) -> None:
        both = drawn(rows, 2 * size, dtype=dtype) * 8
        gate, up = both.float().chunk(2, dim=-1)
        assert_near(Kernels(dtype).gate(both), functional.silu(gate) * up)

    def test_rotation_leaves_the_last_heads_alone(self, dtype: torch.dtype, rows: int, size: int) -> None:
        rotary = Rotary(torch.rand(16, generator=torch.Generator().manual_seed(1)), 50, dtype, "cpu")
        positions = torch.arange(rows) * 7
        x = drawn(rows, 5, 32, dtype=dtype)
        before = x.clone()
        expected = rotary.apply(x[:, :3], rotary.at(positions))
        Kernels(dtype).rotate(x, rotary.tables, positions, 3)
        assert_near(x[:, :3], expected)
        assert torch.equal(x[:, 3:], before[:, 3:])


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_what_is_not_finite_is_seen_to_fail(poison: float) -> None:
    kernels = Kernels(torch.float32)
    x = drawn(2, 8, dtype=torch.float32)
    x[0, 3] = poison
    normed = kernels.add_norm(x, torch.zeros(2, 8), torch.ones(8), 1e-5)
    assert not torch.isfinite(normed[0]).all()
    assert torch.isfinite(normed[1]).all()
    gated = kernels.gate(x)
    assert not torch.isfinite(gated[0]).all()
    assert torch.isfinite(gated[1]).all()
