"""Experts computed slice by slice give what each token gets alone, written as the formula says."""

import pytest
import torch
from torch.nn import functional

from minisgl.distributed.group import Group
from minisgl.layers.experts import Experts
from minisgl.layers.weight import Place

pytestmark = pytest.mark.cpu

NUM, CHOSEN, HIDDEN, WIDTH = 5, 2, 16, 8


def make(*, normalised: bool) -> tuple[Experts, dict[str, torch.Tensor]]:
    """A layer and the weights that it was filled with, by name."""
    torch.manual_seed(0)
    place = Place(Group(), torch.float32, "cpu")
    experts = Experts("mlp", HIDDEN, WIDTH, num=NUM, per_token=CHOSEN, normalised=normalised, place=place)
    weights = {slot.name: torch.randn(slot.target.shape) for slot in experts.slots}
    for slot in experts.slots:
        slot.target.copy_(weights[slot.name])
    experts.loaded()
    return experts, weights


def formula(x: torch.Tensor, weights: dict[str, torch.Tensor], *, normalised: bool) -> torch.Tensor:
    """The output [hidden] of one token [hidden]."""
    probs = (weights["mlp.gate.weight"] @ x).softmax(0)
    best = probs.sort(descending=True).indices[:CHOSEN].tolist()
    total = sum(float(probs[i]) for i in best) if normalised else 1.0
    y = torch.zeros(HIDDEN)
    for i in best:
        gate, up, down = (weights[f"mlp.experts.{i}.{which}_proj.weight"] for which in ("gate", "up", "down"))
        y += probs[i] / total * (down @ (functional.silu(gate @ x) * (up @ x)))
    return y


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 40])
def test_every_token_gets_the_sum_over_its_own_experts(rows: int, normalised: bool) -> None:
    experts, weights = make(normalised=normalised)
    x = torch.randn(rows, HIDDEN)
    wanted = torch.stack([formula(row, weights, normalised=normalised) for row in x])
    torch.testing.assert_close(experts(x), wanted, atol=1e-4, rtol=1e-4)


def test_a_token_of_nan_spoils_no_other() -> None:
    experts, _ = make(normalised=True)
    x = torch.randn(7, HIDDEN)
    clean = experts(x)
    x[3] = float("nan")
    spoilt = experts(x)
    assert spoilt[3].isnan().all()
    others = [0, 1, 2, 4, 5, 6]
    torch.testing.assert_close(spoilt[others], clean[others])
