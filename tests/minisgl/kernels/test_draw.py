"""Gumbel-max in plain torch: the right proportions, anew at every position, and no row's noise like another's."""

from itertools import combinations

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from minisgl.kernels.draw import draw_twin, twin_scores

pytestmark = pytest.mark.cpu

DRAWS = 20_000


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("anew", ["position", "seed", "high half of the seed"])
def test_tokens_come_in_their_proportions(temperature: float, anew: str) -> None:
    probs = np.array([0.05, 0.4, 0.1, 0.3, 0.15])
    logits = torch.from_numpy(np.log(probs)).float().repeat(DRAWS, 1)
    numbers, fixed = torch.arange(DRAWS), torch.full((DRAWS,), 3)
    seeds = {"position": fixed, "seed": numbers, "high half of the seed": numbers << 32}[anew]
    positions = numbers if anew == "position" else fixed
    heat = torch.full((DRAWS,), temperature)
    tokens, failed = draw_twin(logits, heat, seeds, positions, torch.zeros(DRAWS, dtype=torch.int64), numbers)
    assert not failed.any()
    shares = np.bincount(tokens.numpy(), minlength=5) / DRAWS
    expected = probs ** (1 / temperature)
    expected /= expected.sum()
    # Chi-square with 4 degrees of freedom: 23.5 is passed once in ten thousand draws of a true distribution.
    assert DRAWS * ((shares - expected) ** 2 / expected).sum() < 23.5


def test_a_large_vocabulary_of_equals_is_drawn_from_evenly() -> None:
    rows, vocab = 400, 151_936
    zeros = torch.zeros(1, vocab)
    drawn = []
    for row in range(rows):
        scores, _ = twin_scores(zeros, torch.ones(1), torch.tensor([11]), torch.tensor([row]))
        drawn.append(int(scores.argmax()) / vocab)
    shares = np.histogram(drawn, bins=10, range=(0, 1))[0]
    assert ((shares - rows / 10) ** 2 / (rows / 10)).sum() < 33.7  # 9 degrees of freedom, once in ten thousand


def test_noise_has_the_moments_of_a_gumbel_distribution_and_is_not_shared() -> None:
    zeros, one = torch.zeros(1, 151_936), torch.ones(1)
    noises = [
        twin_scores(zeros, one, torch.tensor([seed]), torch.tensor([position]))[0][0]
        for seed, position in ((0, 0), (0, 1), (1, 0), (2**32, 0), (-1, 0), (1, 1))
    ]
    for noise in noises:
        assert abs(float(noise.mean()) - 0.5772) < 0.02
        assert abs(float(noise.var()) - 1.6449) < 0.05
        assert noise.isfinite().all()
    # Between rows, and between a row's neighbouring tokens.
    pairs = [*combinations(noises, 2), *((noise[:-1], noise[1:]) for noise in noises)]
    for pair in pairs:
        assert abs(float(torch.corrcoef(torch.stack(pair))[0, 1])) < 0.015


def test_rounding_changes_few_draws() -> None:
    """A step of other rows rounds otherwise: a seed should still give the same answer, as long as it can."""
    torch.manual_seed(0)
    rows, vocab, error = 4000, 97, 0.01  # of bfloat16 logits
    logits = torch.randn(rows, vocab) * 2
    numbers, heat = torch.arange(rows), torch.full((rows,), 0.8)
    tokens, others = (
        draw_twin(x, heat, numbers, numbers, numbers.clone(), numbers)[0]
        for x in (logits, logits + torch.randn(rows, vocab) * error)
    )
    # Half of a percent; by the inverse of the cumulative distribution it would be 5%, since all sums before it move.
    assert (tokens != others).float().mean() < 0.01
