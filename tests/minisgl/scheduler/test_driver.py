"""Scheduler and engine together, on a tiny model: whatever the load, each request gets what it gets alone."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize("overlap", ["off", "on"])
def test_200_requests_with_aborts_and_evictions_each_get_what_they_get_alone(
    overlap: str, driver: MakeDriver, checkpoint: Checkpoint
) -> None:
    server = driver(num_pages=20, page_size=4, max_running_requests=8, max_prefill_length=32, overlap=overlap)
    load = Load(server, seed=11)
    load.run(200)
    stats = server.scheduler.stats()
    assert stats.preemptions_total > 0
    assert stats.prefix_hit_tokens_total > 0
    assert Counter(load.ends.values())[Finish.ABORT] > 5
    load.compare(checkpoint("llama")[1])


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(12, temperature=0, ignore_eos=True, repetition_penalty=1.5, frequency_penalty=0.5),
        SamplingParams(12, temperature=1.0, seed=3, ignore_eos=True, presence_penalty=1.0, logit_bias={5: 3.0}),
        SamplingParams(12, temperature=1.0, seed=3, top_k=5, min_p=0.1, logprobs=2),
    ],
)
def test_overlap_changes_no_token_whatever_is_asked(sampling: SamplingParams, driver: MakeDriver) -> None:
    plain, overlapping = (driver(num_pages=40, overlap=overlap) for overlap in ("off", "on"))
    assert overlapping.generate(PROMPTS, sampling) == plain.generate(PROMPTS, sampling)


def test_a_repetition_penalty_gives_the_tokens_of_transformers(driver: MakeDriver, checkpoint: Checkpoint) -> None:
    ids = torch.tensor([PROMPTS[2]])
    options = {"do_sample": False, "max_new_tokens": 15, "min_new_tokens": 15, "pad_token_id": 0}
    oracle = checkpoint("llama")[1].generate(ids, repetition_penalty=1.3, eos_token_id=None, **options)
    sampling = SamplingParams(15, temperature=0, ignore_eos=True, repetition_penalty=1.3)
    assert driver().generate([PROMPTS[2]], sampling)[0] == oracle[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("overlap", ["off", "on"])
@pytest.mark.parametrize("ignore_eos", [False, True])
def test_min_tokens_gives_the_tokens_of_transformers(
    overlap: str, ignore_eos: bool, driver: MakeDriver, checkpoint: Checkpoint
) -> None:
    """Any token of the plain answer as an end: it is not chosen before, and ends the answer after `min_tokens`."""
    oracle, prompt = checkpoint("llama")[1], PROMPTS[2]
    ids = torch.tensor([prompt])
    stops = tuple(sorted(set(oracle_greedy(oracle, prompt, 6))))
    ends = [*stops, *([] if ignore_eos else [96])]
    options = {"do_sample": False, "max_new_tokens": 15, "min_new_tokens": 7, "pad_token_id": 0}
    expected = oracle.generate(ids, eos_token_id=ends, **options)[0, ids.shape[1] :].tolist()
    assert not set(expected[:7]) & set(stops)
    sampling = SamplingParams(15, temperature=0, stop_token_ids=stops, min_tokens=7, ignore_eos=ignore_eos)
    assert driver(overlap=overlap).generate([prompt, [5]], sampling)[0] == expected


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
    server = driver(num_pages=64 // page_size, page_size=page_size, cache_type=cache_type, max_prefill_length=24)
    load = Load(server, seed=page_size)
    load.run(24)
    load.compare(checkpoint("llama")[1])


class Load:
    """Random greedy requests that share a prefix, and random aborts."""

    def __init__(self, server: Driver, seed: int) -> None:
        self.server, self.random = server, np.random.default_rng(seed)
        self.asked: dict[int, tuple[list[int], int]] = {}
        self.tokens: dict[int, list[int]] = {}
        self.ends: dict[int, Finish] = {}

    def run(self, count: int) -> None:
        scheduler, random = self.server.scheduler, self.random
        shared = random.integers(0, 96, 20).tolist()
        while len(self.asked) < count or scheduler.has_work:
            if len(self.asked) < count and random.random() < 0.6:
                uid = len(self.asked)
                prompt = shared[: random.integers(1, 20)] + random.integers(0, 96, random.integers(1, 12)).tolist()
                self.asked[uid] = prompt, int(random.integers(1, 20))
                sampling = SamplingParams(self.asked[uid][1], temperature=0, ignore_eos=True)
                scheduler.add(Generate(uid, np.array(prompt, np.int32).tobytes(), sampling, DecodeParams()))
            if random.random() < 0.1 and self.asked:
                scheduler.abort(int(random.integers(len(self.asked))))
            self.server.step()
            scheduler.check_integrity()
            for uid, token, finish in unpack(self.server.take()):
                assert uid not in self.ends
                self.tokens.setdefault(uid, []).extend([token] if token >= 0 else [])
                if finish != Finish.RUNNING:
                    self.ends[uid] = finish

    def compare(self, oracle: Any) -> None:
        """Every answer, or what an abort left of it, is the one that transformers gives this prompt alone."""
        assert set(self.ends) == set(self.asked)
        assert Finish.ABORT in self.ends.values()
        for uid, (prompt, max_tokens) in self.asked.items():
            alone = oracle_greedy(oracle, prompt, max_tokens)
            assert self.tokens[uid] == alone[: len(self.tokens[uid])]
            assert self.ends[uid] == Finish.ABORT or len(self.tokens[uid]) == max_tokens


def test_an_impossible_request_says_why(driver: MakeDriver) -> None:
    with pytest.raises(ValueError, match="more than the context of 256 tokens"):
        driver().generate([[1, 2]], SamplingParams(1000))
