"""Sampling: the right tokens, in the right proportions, from each row's own seed."""

from typing import Any

import numpy as np
import pytest
import torch

from minisgl.engine.batch import Sampled, Sampling
from minisgl.engine.sampler import sample, uniform

pytestmark = pytest.mark.cpu


def asking(rows: int, position: int | np.ndarray = 0, **columns: Any) -> Sampling:
    defaults: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seeds": np.arange(rows)}
    dtypes = {"temperature": "f4", "top_k": "i4", "top_p": "f4", "min_p": "f4", "seeds": "u8"}
    filled = {
        name: np.broadcast_to(np.asarray(value, dtypes[name]), rows) for name, value in (defaults | columns).items()
    }
    return Sampling(positions=np.broadcast_to(np.asarray(position, np.int32), rows), **filled)


def choose(logits: torch.Tensor, sampling: Sampling, last: list[int] | None = None) -> Sampled:
    before = torch.zeros(len(logits), dtype=torch.int64) if last is None else torch.tensor(last)
    return sample(logits, sampling, before).send_home()()


SCORES = torch.log(torch.tensor([0.05, 0.4, 0.1, 0.3, 0.15]))


def draws(count: int = 20_000, **columns: Any) -> np.ndarray:
    """Shares of the five tokens over many positions of one seed."""
    tokens = choose(SCORES.repeat(count, 1), asking(count, np.arange(count), seeds=3, **columns)).tokens
    return np.bincount(tokens, minlength=5) / count


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, [0.05, 0.4, 0.1, 0.3, 0.15]),
        ({"temperature": 0.5}, [0.0025 / 0.285, 0.16 / 0.285, 0.01 / 0.285, 0.09 / 0.285, 0.0225 / 0.285]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7, 0]),
        ({"top_k": 99}, [0.05, 0.4, 0.1, 0.3, 0.15]),
        ({"top_p": 0.75}, [0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85]),
        ({"top_p": 0.01}, [0, 1, 0, 0, 0]),
        ({"min_p": 0.3}, [0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85]),
        ({"top_k": 3, "top_p": 0.8}, [0, 4 / 7, 0, 3 / 7, 0]),
        ({"temperature": 0}, [0, 1, 0, 0, 0]),
        ({"temperature": 1e-30}, [0, 1, 0, 0, 0]),
    ],
)
def test_tokens_come_in_their_proportions(columns: dict[str, Any], expected: list[float]) -> None:
    assert draws(**columns) == pytest.approx(expected, abs=0.015)


def test_a_row_draws_the_same_whatever_stands_beside_it() -> None:
    logits = torch.randn(6, 40, generator=torch.Generator().manual_seed(1))
    mixed = asking(6, 9, temperature=[0, 1, 1, 0.7, 2, 1], top_k=[0, 0, 5, 0, 0, 7], top_p=[1, 1, 1, 0.5, 1, 0.9])
    together = choose(logits, mixed).tokens
    for i in range(6):
        alone = asking(
            1, 9, **{name: getattr(mixed, name)[i : i + 1] for name in ("temperature", "top_k", "top_p", "seeds")}
        )
        assert choose(logits[i : i + 1], alone).tokens[0] == together[i]


def test_a_position_draws_anew() -> None:
    numbers = uniform(np.full(1000, 7, np.uint64), np.arange(1000, dtype=np.int32))
    assert len(set(numbers.tolist())) == 1000
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert numbers.mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_poisoned_row_fails_alone(poison: float, temperature: float) -> None:
    logits = SCORES.repeat(3, 1)
    logits[1, 2] = poison
    result = choose(logits, asking(3, temperature=temperature, top_k=[0, 2, 2]))
    assert result.failed.tolist() == [False, True, False]


def test_a_token_ruled_out_by_minus_infinity_is_no_failure() -> None:
    logits = SCORES.repeat(2, 1)
    logits[:, 1] = float("-inf")
    result = choose(logits, asking(2, temperature=[0, 1]))
    assert not result.failed.any()
    assert result.tokens[0] == 3
