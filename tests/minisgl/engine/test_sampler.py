"""Sampling: the right tokens, in the right proportions, from each row's own seed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from minisgl.engine import penalties
from minisgl.engine.batch import NOT_KNOWN, Extras, Sampled, Sampling
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


DRAWS = 20_000


def draws(count: int = DRAWS, **columns: Any) -> np.ndarray:
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
    shares, expected_shares = draws(**columns), np.array(expected)
    assert not shares[expected_shares == 0].any(), "what is ruled out never comes"
    possible = expected_shares > 0
    deviation = (shares - expected_shares)[possible] ** 2 / expected_shares[possible]
    # Chi-square with up to 4 degrees of freedom: 23.5 is passed once in ten thousand draws of a true distribution.
    assert DRAWS * deviation.sum() < 23.5


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


def test_a_mask_leaves_only_what_it_allows() -> None:
    logits = torch.randn(3, 70)  # two words and six tokens of a third
    masks = np.zeros((2, 3), np.int32)
    masks[0, 1] = np.uint32(1 << 31).view(np.int32)  # token 63 alone
    masks[1, [0, 2]] = 0b101, 0b100000  # tokens 0, 2 and 69
    extras = extras_of(held_at=[0, 2], masks=masks, logprobs_at=[0], num_top=[2])
    for seed in range(20):
        result = choose(logits, replace(asking(3, temperature=[1, 0, 2], seeds=[seed] * 3), extras=extras))
        assert not result.failed.any()
        assert result.tokens[0] == 63
        assert result.tokens[1] == int(logits[1].argmax())
        assert result.tokens[2] in (0, 2, 69)
        assert result.logprobs[0].logprob == 0


def extras_of(**columns: Any) -> Extras:
    """One row's wishes; what is not named asks for nothing."""
    kinds = {"presence": "f4", "frequency": "f4", "repetition": "f4", "bias": "f4", "masks": "i4"}
    names = Extras.__dataclass_fields__
    return Extras(**{name: np.array(columns.get(name, []), kinds.get(name, "i8")) for name in names})


def test_penalties_are_those_of_the_field() -> None:
    """Repetition as transformers computes it; presence and frequency by OpenAI's formula, over the answer alone."""
    logits = torch.randn(2, 12, generator=torch.Generator().manual_seed(3))
    prompt, answer = [1, 2, 2, 3], [4, 4, 4, 5]
    history = torch.tensor([prompt + answer])
    expected = RepetitionPenaltyLogitsProcessor(1.7)(history, logits[1:].clone())
    for token, times in ((4, 3), (5, 1)):
        expected[0, token] -= 0.25 * times + 0.5
    extras = extras_of(
        penalised_at=[1],
        presence=[0.5],
        frequency=[0.25],
        repetition=[1.7],
        prompt_len=[len(prompt)],
        history_len=[history.shape[1]],
        history=[*prompt, *answer[:-1], NOT_KNOWN],  # the step before is still in flight
    )
    changed = logits.clone()
    penalties.apply(changed, extras, torch.tensor([0, answer[-1]]))
    torch.testing.assert_close(changed[0], logits[0], atol=0, rtol=0)
    torch.testing.assert_close(changed[1], expected[0])


def test_a_bias_moves_its_token_alone_and_decides_a_greedy_row() -> None:
    extras = extras_of(bias_at=[0, 0, 1], bias_token=[4, 1, 1], bias=[9.0, -100.0, -100.0])
    sampling = replace(Sampling.greedy(3), extras=extras)
    assert choose(SCORES.repeat(3, 1), sampling).tokens.tolist() == [4, 3, 1]


def test_logprobs_are_those_of_the_distribution_that_is_drawn_from() -> None:
    extras = extras_of(logprobs_at=[0, 2], num_top=[3, 0], bias_at=[2], bias_token=[1], bias=[-100.0])
    result = choose(SCORES.repeat(3, 1), replace(Sampling.greedy(3), extras=extras))
    assert set(result.logprobs) == {0, 2}
    first, third = result.logprobs[0], result.logprobs[2]
    assert (first.token, [token for token, _ in first.top]) == (1, [1, 3, 4])
    assert [np.exp(value) for _, value in first.top] == pytest.approx([0.4, 0.3, 0.15])
    assert np.exp(first.logprob) == pytest.approx(0.4)
    assert (third.token, third.top) == (3, ())
    assert np.exp(third.logprob) == pytest.approx(0.3 / 0.6)


def test_what_one_row_asks_changes_no_other_row() -> None:
    logits = torch.randn(4, 30, generator=torch.Generator().manual_seed(5))
    plain = asking(4, 2, temperature=[0, 1, 0.7, 1], top_p=[1, 1, 0.9, 1])
    extras = extras_of(bias_at=[3], bias_token=[0], bias=[50.0], logprobs_at=[3], num_top=[2])
    asked = choose(logits, replace(plain, extras=extras)).tokens
    assert asked[:3].tolist() == choose(logits, plain).tokens[:3].tolist()
    assert asked[3] == 0
