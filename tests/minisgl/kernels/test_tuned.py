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
    assert chosen == {(3, 5, 8, torch.float32, False): None}


def test_what_was_chosen_serves_its_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def seven(x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor) -> None:
        y.fill_(7)

    monkeypatch.setattr(tuned, "_chosen", {(3, 5, 8, torch.float32, False): seven})
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


def test_a_gate_is_taken_in_only_where_a_kernel_does_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def gated(x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor) -> None:
        gate, up = functional.linear(x, weight).chunk(2, dim=-1)
        y.copy_(functional.silu(gate) * up)

    monkeypatch.setattr(tuned, "_chosen", {})
    at_once = gated
    monkeypatch.setattr(tuned.tiled, "way", lambda rows, weight, gated: at_once if gated and rows == 3 else None)
    x, weight = torch.randn(3, 8), torch.randn(6, 8)
    assert tuned.gated(x, weight) is None, "nothing was chosen yet"
    with tuned.choosing():
        for rows in (3, 2):
            tuned.gated(x[:rows], weight)
    expected = x.new_empty(3, 3)
    gated(x, weight, expected)
    assert torch.equal(tuned.gated(x, weight), expected)
    assert tuned.gated(x[:2], weight) is None
    assert tuned.gated(x, weight, torch.randn(6)) is None


@pytest.mark.parametrize("what", ["raises", "is off", "leaves lines"])
def test_tiles_that_fail_are_not_taken(
    what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def multiply(x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor) -> None:
        if what == "raises":
            raise TypeError("gemm() got an unexpected keyword argument 'pingpong'")
        torch.mul(functional.linear(x, weight), 1.1 if what == "is off" else 1, out=y)
        if what == "leaves lines":
            y[200:] = torch.nan

    monkeypatch.setattr(tuned, "_chosen", {})
    monkeypatch.setattr(tuned.tiled, "way", lambda rows, weight, gated: multiply)
    x, weight = torch.randn(256, 8), torch.randn(6, 8)
    with tuned.choosing():
        assert torch.equal(tuned.linear(x, weight), functional.linear(x, weight))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "not tiled" in caplog.text


class Clock:
    """Stands for torch.cuda.Event."""

    def __init__(self, *, enable_timing: bool) -> None: ...

    def record(self) -> None: ...

    def synchronize(self) -> None: ...

    def elapsed_time(self, end: object) -> float:
        return 1.0
