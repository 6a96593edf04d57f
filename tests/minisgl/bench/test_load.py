"""What `bench serve` sends: the same from the same seed, of the lengths and at the pace that were asked for."""

import itertools
import json
from dataclasses import replace

import pytest

from minisgl.bench.load import Lengths, Load, bodies

LOAD = Load(400, Lengths(3, 9), Lengths(5, 5), 0, 8.0, None)


def prompts(load: Load, api: str = "completions") -> list[list[int]]:
    return [json.loads(body)["prompt"] for body in bodies(load, api, 250, {"model": "m"})]


def test_a_seed_is_a_load() -> None:
    assert prompts(LOAD) == prompts(LOAD)
    assert LOAD.arrivals() == LOAD.arrivals()
    other = replace(LOAD, seed=1)
    assert prompts(LOAD) != prompts(other)
    assert LOAD.arrivals() != other.arrivals()


def test_prompts_are_as_long_as_asked_and_answers_are_asked_so() -> None:
    made = prompts(LOAD)
    assert {len(prompt) for prompt in made} == set(range(3, 10))
    assert max(max(prompt) for prompt in made) < 250
    for body in map(json.loads, bodies(LOAD, "chat", 250, {"model": "m"})):
        assert 3 <= len(body["messages"][0]["content"].split()) <= 9
        assert body["max_tokens"] == 5
        assert body["stream_options"] == {"include_usage": True}


def test_arrivals_are_poissons() -> None:
    moments = LOAD.arrivals()
    gaps = [later - sooner for sooner, later in itertools.pairwise(moments)]
    assert moments[0] == 0
    assert min(gaps) >= 0
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(1 / 8, rel=0.15)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.2), "exponential: as wide as its mean"


def test_a_warm_up_shares_no_prompt() -> None:
    assert not {tuple(prompt[:3]) for prompt in prompts(LOAD.warm_up(5))} & {tuple(p[:3]) for p in prompts(LOAD)[:5]}
