"""A tuned product has the bits of torch's, with weights that were not there when it was chosen."""

import pytest
import torch
from torch.nn import functional

from minisgl.kernels import tuned


@pytest.mark.parametrize("rows", [192, 1024, 4096])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_tuned_product_equals_torchs(rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for outs, ins in ((7168, 5120), (6144, 1024), (34816, 5120), (5120, 17408)):
        x, *weights = (torch.randn(n, ins, device="cuda").to(dtype) for n in (rows, outs, outs))
        with tuned.choosing():
            tuned.linear(x, weights[0])
        for weight in weights:
            assert torch.equal(tuned.linear(x, weight), functional.linear(x, weight))
