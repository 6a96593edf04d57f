"""A packed matrix multiplies as the plain one does, for any number of rows."""

import pytest
import torch
from torch.nn import functional

from minisgl.layers.weight import Matrix

pytestmark = pytest.mark.cpu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 8, 100])
def test_packing_changes_the_layout_and_not_the_product(dtype: torch.dtype, rows: int) -> None:
    weight, bias, x = (torch.randn(*shape).to(dtype) for shape in ((40, 24), (40,), (rows, 24)))
    matrix = Matrix(weight.clone())
    plain = matrix(x, bias)
    torch.testing.assert_close(plain, functional.linear(x, weight, bias))
    matrix.pack()
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(matrix(x, bias), plain, atol=tolerance, rtol=tolerance)


def test_a_matrix_that_is_also_looked_up_keeps_its_rows() -> None:
    weight = torch.randn(40, 24)
    matrix = Matrix(weight)
    assert matrix.pack(keep=True) in (0, weight.nbytes)
    assert matrix.weight is weight
