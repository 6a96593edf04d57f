"""The product in C beside the same sums in float64, and who is served by it."""

import itertools

import pytest
import torch

from minisgl.kernels import native, product
from minisgl.kernels.product import Product

pytestmark = pytest.mark.cpu

TOLERANCES = {torch.bfloat16: 2**-8, torch.float32: 1e-5}


@pytest.fixture(params=TOLERANCES)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    kind: torch.dtype = request.param
    if not product.serves(torch.empty(2, 2, dtype=kind)):
        pytest.skip(f"this CPU has no vectors for {kind}, or no compiler")
    return kind


# Every number of vectors in the last block, full and cut, and every number of rows in the last group.
OUTPUTS = [1, 15, 16, 17, 32, 40, 47, 48, 49, 96, 130]
ROWS = [*range(1, 10), 16, 31]


@pytest.mark.parametrize(("outputs", "rows"), [*itertools.product(OUTPUTS, ROWS)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_it_is_the_rounded_sum(outputs: int, rows: int, with_bias: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(outputs * 100 + rows)
    x, weight, bias = (
        torch.randn(shape, generator=generator).to(dtype) for shape in ((rows, 70), (outputs, 70), (outputs,))
    )
    y = Product(weight)(x, bias if with_bias else None)
    exact = x.double() @ weight.double().T + (bias.double() if with_bias else 0)
    assert y.shape == (rows, outputs)
    torch.testing.assert_close(y.double(), exact, rtol=TOLERANCES[dtype], atol=1e-5)


def test_rows_may_lie_apart(dtype: torch.dtype) -> None:
    wide, weight = torch.randn(5, 100).to(dtype), torch.randn(40, 64).to(dtype)
    multiply = Product(weight)
    assert torch.equal(multiply(wide[:, :64]), multiply(wide[:, :64].contiguous()))


def test_a_row_is_the_same_beside_any_others(dtype: torch.dtype) -> None:
    x, multiply = torch.randn(21, 64).to(dtype), Product(torch.randn(100, 64).to(dtype))
    whole = multiply(x)
    for rows in range(1, 21):
        assert torch.equal(multiply(x[:rows]), whole[:rows])


def test_a_row_that_is_not_finite_shows_and_keeps_to_itself(dtype: torch.dtype) -> None:
    x, multiply = torch.randn(3, 64).to(dtype), Product(torch.randn(40, 64).to(dtype))
    x[1, 5] = torch.nan
    y = multiply(x)
    assert y[1].isnan().all()
    assert y[[0, 2]].isfinite().all()


@pytest.mark.parametrize("weight", [torch.empty(8, 7, dtype=torch.bfloat16), torch.empty(8, 8, dtype=torch.float16)])
def test_other_weights_are_left_to_torch(weight: torch.Tensor) -> None:
    assert not product.serves(weight)


def test_several_threads_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "is_usable", lambda: False)
    assert not product.serves(torch.empty(8, 8, dtype=torch.bfloat16))
