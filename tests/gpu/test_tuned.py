"""A tuned product has the bits of torch's, and a tiled one its numbers, with weights that were not there when it was
chosen.
"""

import pytest
import torch
from torch.nn import functional

from minisgl.kernels import tiled, tuned
from minisgl.kernels.gate import gate_twin


@pytest.mark.parametrize("rows", [192, 1024, 4096])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_tuned_product_equals_torchs(rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for outs, ins in ((7168, 5120), (6144, 1024), (34816, 5120), (5120, 17408)):
        x, *weights = (torch.randn(n, ins, device="cuda").to(dtype) for n in (rows, outs, outs))
        with tuned.choosing():
            tuned.linear(x, weights[0])
        for weight in weights:
            ours, expected = tuned.linear(x, weight), functional.linear(x, weight)
            if tiled.way(rows, weight, gated=False) is None:
                assert torch.equal(ours, expected)
            else:
                assert off(ours, expected) < 5e-3


@pytest.mark.parametrize("rows", [224, 256, 384, 768, 1024, 4096])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_gate_in_a_product_equals_the_gate_behind_it(rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    taken = 0
    for outs, ins in ((6144, 1024), (28672, 4096), (34816, 5120)):
        x, *weights = (torch.randn(n, ins, device="cuda").to(dtype) / 8 for n in (rows, outs, outs))
        with tuned.choosing():
            tuned.gated(x, weights[0])
        for weight in weights:
            if (ours := tuned.gated(x, weight)) is not None:
                assert off(ours, gate_twin(functional.linear(x, weight))) < 5e-3
                taken += 1
    assert taken, "quack is installed, and serves some"


def off(ours: torch.Tensor, expected: torch.Tensor) -> float:
    return float((ours.float() - expected.float()).norm() / expected.float().norm())
