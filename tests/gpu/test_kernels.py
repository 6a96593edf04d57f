"""Each fused kernel equals its twin in plain torch."""

import pytest

from support.kernels import CHECKS


@pytest.mark.parametrize("name", CHECKS)
def test_a_kernel_on_the_gpu(name: str) -> None:
    CHECKS[name]("cuda")
