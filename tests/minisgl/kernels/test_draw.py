"""The draw in plain torch, which the kernels equal: the right proportions, from the numbers that a CPU draws."""

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from minisgl.engine.batch import Sampling
from minisgl.engine.sampler import sample, uniform
from minisgl.kernels.draw import draw_twin, uniform_twin

pytestmark = pytest.mark.cpu

DRAWS = 20_000
PROBS = np.array([0.05, 0.4, 0.1, 0.3, 0.15])


def draws(logits: torch.Tensor, heat: float, seeds: torch.Tensor | int = 3) -> torch.Tensor:
    """Tokens of rows that differ by nothing but their positions, and their seeds if these are given."""
    count = len(logits)
    numbers = torch.arange(count)
    if isinstance(seeds, int):
        seeds = torch.full((count,), seeds)
    last = torch.zeros(count, dtype=torch.int64)
    tokens, failed = draw_twin(logits, torch.full((count,), heat), seeds, numbers, last, numbers)
    assert not failed.any()
    assert torch.equal(last, tokens.long())
    return tokens


def assert_in_proportion(tokens: torch.Tensor, expected: np.ndarray) -> None:
    counts = np.bincount(tokens.numpy(), minlength=len(expected))
    possible = expected > 0
    assert not counts[~possible].any(), "what is ruled out never comes"
    wanted = len(tokens) * expected[possible]
    # Chi-square with up to 4 degrees of freedom: 23.5 is passed once in ten thousand draws of a true distribution.
    assert ((counts[possible] - wanted) ** 2 / wanted).sum() < 23.5


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0, 100.0])
@pytest.mark.parametrize("anew", ["position", "seed", "high half of the seed"])
def test_tokens_come_in_their_proportions(temperature: float, anew: str) -> None:
    logits = torch.from_numpy(np.log(PROBS)).float().repeat(DRAWS, 1)
    numbers = torch.arange(DRAWS)
    seeds: dict[str, torch.Tensor | int] = {"position": 3, "seed": numbers, "high half of the seed": numbers << 32}
    expected = PROBS ** (1 / temperature)
    assert_in_proportion(draws(logits, temperature, seeds[anew]), expected / expected.sum())


@pytest.mark.parametrize("temperature", [1e-2, 1e-30, 1e-45])
def test_a_tiny_temperature_leaves_the_best_alone(temperature: float) -> None:
    logits = torch.tensor([3.0, 8.0, float("-inf"), 8.0, 7.0]).repeat(DRAWS, 1)
    assert_in_proportion(draws(logits, temperature), np.array([0, 0.5, 0, 0.5, 0]))
    assert (draws(logits, 0.0) == 1).all(), "greedy rows take the lowest of equals"


def test_what_is_ruled_out_never_comes() -> None:
    logits = torch.from_numpy(np.log(PROBS)).float().repeat(DRAWS, 1)
    logits[:, [0, 3]] = float("-inf")
    assert_in_proportion(draws(logits, 1.0), np.array([0, 0.4, 0.1, 0, 0.15]) / 0.65)


def test_a_large_vocabulary_of_equals_is_drawn_from_evenly() -> None:
    rows, vocab = 400, 151_936
    zeros = torch.zeros(1, vocab).expand(20, vocab)  # few at a time: a running sum has 8 bytes a token
    tokens = torch.cat([draws(zeros, 1.0, seed) for seed in range(rows // 20)]).numpy()
    shares = np.histogram(tokens, bins=10, range=(0, vocab))[0]
    assert ((shares - rows / 10) ** 2 / (rows / 10)).sum() < 33.7  # 9 degrees of freedom, once in ten thousand


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_poisoned_row_fails_alone(temperature: float) -> None:
    logits = torch.zeros(5, 9)
    logits[1, 4], logits[2, 5], logits[3], logits[4, 1:] = float("nan"), float("inf"), float("-inf"), float("-inf")
    zeros, numbers = torch.zeros(5, dtype=torch.int64), torch.arange(5)
    tokens, failed = draw_twin(logits, torch.full((5,), temperature), zeros, zeros, zeros.clone(), numbers)
    assert failed.tolist() == [0, 1, 1, 1, 0]
    assert tokens[1:].tolist() == [4, 5, 0, 0], "a token that has an embedding, whatever it is"


def test_its_numbers_are_a_cpus_bit_for_bit() -> None:
    random = np.random.default_rng(0)
    seeds = np.concatenate([np.array([0, 1, 2**63, 2**64 - 1], np.uint64), random.integers(0, 2**64, 1000, np.uint64)])
    positions = random.integers(0, 2**31, len(seeds), np.int32)
    ours = uniform_twin(torch.from_numpy(seeds.view(np.int64)), torch.from_numpy(positions).long())
    assert ours.numpy().tolist() == uniform(seeds, positions).tolist()


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 1.7])
def test_a_seed_gives_a_cpus_tokens(temperature: float) -> None:
    rows = 2000
    logits = torch.randn(rows, 300, generator=torch.Generator().manual_seed(7))
    seeds = np.arange(rows, dtype=np.uint64) << np.uint64(33)
    sampling = replace(
        Sampling.greedy(rows),
        temperature=np.full(rows, temperature, np.float32),
        seeds=seeds,
        positions=np.arange(rows, dtype=np.int32),
    )
    theirs = sample(logits, sampling, torch.zeros(rows, dtype=torch.int64)).chosen[0]
    # Both round, at another place: a number would have to lie within 1e-6 of a token's end.
    assert torch.equal(draws(logits, temperature, torch.from_numpy(seeds.view(np.int64))), theirs)
