"""Scheduler and engine together, on a tiny model: whatever the load, each request gets what it gets alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minisgl.messages import DecodeParams, Finish, Generate, SamplingParams
from minisgl.scheduler.driver import Driver, unpack
from support.checkpoints import FAMILIES, oracle_greedy

pytestmark = pytest.mark.cpu

MakeDriver = Callable[..., Driver]
Checkpoint = Callable[[str], tuple[Path, Any]]
RANDOM = np.random.default_rng(2)
PROMPTS = [RANDOM.integers(0, 96, size).tolist() for size in (1, 3, 17, 30, 8, 25)]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_those_of_transformers(family: str, driver: MakeDriver, checkpoint: Checkpoint) -> None:
    answers = driver(family, max_prefill_length=13).generate(PROMPTS, SamplingParams(12, temperature=0))
    assert answers == [oracle_greedy(checkpoint(family)[1], prompt, 12, eos=96) for prompt in PROMPTS]


def test_a_prefix_hit_changes_no_token(driver: MakeDriver) -> None:
    engine, greedy = driver(), SamplingParams(10, temperature=0)
    first = engine.generate([PROMPTS[3]], greedy)
    assert engine.generate([PROMPTS[3]], greedy) == first
    assert engine.scheduler.stats().prefix_hit_tokens_total == 28


def test_a_preempted_request_goes_on_where_it_was(driver: MakeDriver, checkpoint: Checkpoint) -> None:
    engine = driver(num_pages=12, max_running_requests=4)
    answers = engine.generate(PROMPTS, SamplingParams(12, temperature=0, ignore_eos=True))
    assert engine.scheduler.stats().preemptions_total > 0
    assert answers == [oracle_greedy(checkpoint("llama")[1], prompt, 12) for prompt in PROMPTS]


def test_a_seed_gives_the_same_tokens_alone_together_and_after_preemption(driver: MakeDriver) -> None:
    sampling = SamplingParams(12, temperature=1.0, seed=5, ignore_eos=True, top_p=0.95)
    together = driver(num_pages=12, max_running_requests=4)
    answers = together.generate(PROMPTS, sampling)
    assert together.scheduler.stats().preemptions_total > 0
    assert answers == [driver().generate([prompt], sampling)[0] for prompt in PROMPTS]


@pytest.mark.parametrize("page_size", [1, 4, 16])
@pytest.mark.parametrize("cache_type", ["radix", "naive"])
def test_any_load_with_aborts_in_a_tiny_pool_gives_each_its_own_answer(
    page_size: int, cache_type: str, driver: MakeDriver, checkpoint: Checkpoint
) -> None:
    random = np.random.default_rng(page_size)
    server = driver(num_pages=64 // page_size, page_size=page_size, cache_type=cache_type, max_prefill_length=24)
    shared = random.integers(0, 96, 20).tolist()
    asked: dict[int, tuple[list[int], int]] = {}
    tokens: dict[int, list[int]] = {}
    ends: dict[int, Finish] = {}
    while len(asked) < 24 or server.scheduler.has_work:
        if len(asked) < 24 and random.random() < 0.6:
            uid = len(asked)
            prompt = shared[: random.integers(1, 20)] + random.integers(0, 96, random.integers(1, 12)).tolist()
            asked[uid] = prompt, int(random.integers(1, 20))
            sampling = SamplingParams(asked[uid][1], temperature=0, ignore_eos=True)
            server.scheduler.add(Generate(uid, np.array(prompt, np.int32).tobytes(), sampling, DecodeParams()))
        if random.random() < 0.1 and asked:
            server.scheduler.abort(int(random.integers(len(asked))))
        server.step()
        server.scheduler.check_integrity()
        for uid, token, finish in unpack(server.take()):
            tokens.setdefault(uid, []).extend([token] if token >= 0 else [])
            if finish != Finish.RUNNING:
                assert uid not in ends
                ends[uid] = finish
    assert set(ends) == set(asked)
    assert Finish.ABORT in ends.values()
    for uid, (prompt, max_tokens) in asked.items():
        alone = oracle_greedy(checkpoint("llama")[1], prompt, max_tokens)
        assert tokens[uid] == alone[: len(tokens[uid])]
        assert ends[uid] == Finish.ABORT or len(tokens[uid]) == max_tokens


def test_an_impossible_request_says_why(driver: MakeDriver) -> None:
    with pytest.raises(ValueError, match="more than the context of 256 tokens"):
        driver().generate([[1, 2]], SamplingParams(1000))
