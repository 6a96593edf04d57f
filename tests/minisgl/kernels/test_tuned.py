"""Which product is taken, and that nothing changes where none was measured."""

import pytest
import torch
from torch.nn import functional

from minisgl.kernels import tuned

pytestmark = pytest.mark.cpu


@pytest.mark.parametrize(
    ("times", "taken"), [([1.0], 0), ([1.0, 0.99, 1.2], 0), ([1.0, 0.99, 0.9], 2), ([1.0, 0.9, 0.9], 1)]
)
def test_another_product_is_taken_where_it_is_clearly_faster(times: list[float], taken: int) -> None:
    assert tuned.fastest(times) == taken


def test_rows_that_were_not_measured_are_multiplied_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: dict[object, object] = {}
    monkeypatch.setattr(tuned, "_chosen", chosen)
    x, weight, bias = torch.randn(3, 8), torch.randn(5, 8), torch.randn(5)
    assert torch.equal(tuned.linear(x, weight, bias), functional.linear(x, weight, bias))
    assert not chosen
    with tuned.choosing():  # too small to be measured
        assert torch.equal(tuned.linear(x, weight), functional.linear(x, weight))
    assert chosen == {(3, 5, 8, torch.float32): None}


def test_what_was_chosen_serves_its_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def seven(x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor) -> None:
        y.fill_(7)

    monkeypatch.setattr(tuned, "_chosen", {(3, 5, 8, torch.float32): seven})
    weight = torch.randn(5, 8)
    assert (tuned.linear(torch.randn(3, 8), weight) == 7).all()
    for x, bias in ((torch.randn(2, 8), None), (torch.randn(8, 3).T, None), (torch.randn(3, 8), torch.randn(5))):
        assert torch.equal(tuned.linear(x, weight, bias), functional.linear(x, weight, bias))
