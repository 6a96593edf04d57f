"""Each kernel equals its twin; on a GPU, tests/gpu/test_kernels.py runs the same checks."""

import pytest

from support.kernels import CHECKS

pytestmark = pytest.mark.cpu


@pytest.mark.parametrize("name", CHECKS)
def test_a_kernel_in_the_interpreter(name: str, interpreted: dict[str, str]) -> None:
    assert name not in interpreted, interpreted[name]
