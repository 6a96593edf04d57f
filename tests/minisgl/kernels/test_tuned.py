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


def test_a_library_that_cannot_be_asked_leaves_torchs_product(monkeypatch: pytest.MonkeyPatch) -> None:
    def ways(rows: int, weight: torch.Tensor) -> list[object]:
        raise OSError("libcublasLt.so.99: cannot open shared object file")

    monkeypatch.setattr(tuned, "_chosen", {})
    monkeypatch.setattr(tuned, "LEAST_OPERATIONS", 0)
    monkeypatch.setattr(tuned.lt, "ways", ways)
    x, weight = torch.randn(3, 8), torch.randn(5, 8)
    with tuned.choosing():
        assert torch.equal(tuned.linear(x, weight), functional.linear(x, weight))


def test_products_that_fail_or_give_other_bits_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor) -> None:
        raise RuntimeError("cuBLASLt: status 15")

    def wrong(x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor) -> None:
        y.fill_(7)

    timed: list[list[float]] = []
    monkeypatch.setattr(tuned, "_chosen", {})
    monkeypatch.setattr(tuned, "LEAST_OPERATIONS", 1)
    monkeypatch.setattr(tuned, "ROUND_SECONDS", 0)
    monkeypatch.setattr(tuned.lt, "ways", lambda rows, weight: [refused, wrong])
    monkeypatch.setattr(tuned, "fastest", lambda times: timed.append(list(times)) or 0)
    monkeypatch.setattr(torch.cuda, "Event", Clock)
    x, weight = torch.randn(3, 8), torch.randn(5, 8)
    with tuned.choosing():
        assert torch.equal(tuned.linear(x, weight), functional.linear(x, weight))
    assert timed == [[1.0]], "torch's own was all that was left to time"


class Clock:
    """Stands for torch.cuda.Event."""

    def __init__(self, *, enable_timing: bool) -> None: ...

    def record(self) -> None: ...

    def synchronize(self) -> None: ...

    def elapsed_time(self, end: object) -> float:
        return 1.0
