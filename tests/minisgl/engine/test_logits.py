"""Every family, with tied and untied embeddings and every kind of positions, against transformers in float32: the same
numbers however a prompt is cut, wherever its pages are, whether or not others computed them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minisgl.args import LaunchArgs
from minisgl.engine.batch import Batch, Sampling
from minisgl.messages import SamplingParams
from minisgl.scheduler.driver import Driver, build_engine
from support.checkpoints import FAMILIES, VARIANTS, oracle_greedy, oracle_logits, save_tiny

pytestmark = pytest.mark.cpu

MakeDriver = Callable[..., Driver]
Checkpoint = Callable[[str], tuple[Path, Any]]
PROMPT = np.random.default_rng(3).integers(0, 96, 26).tolist()
HOME, ELSEWHERE = [3, 1, 4, 9, 5, 2, 6], [20, 18, 12, 11, 30, 7, 8]  # pages of 4 tokens
GREEDY = SamplingParams(10, temperature=0, ignore_eos=True)


def logits(driver: Driver, tokens: list[int], start: int, pages: list[int]) -> torch.Tensor:
    """Compute tokens that follow `start` others of a request; the scores after the last one."""
    batch = Batch(
        rows=np.zeros(1, np.int32),
        tokens=np.array(tokens, np.int32),
        starts=np.array([start], np.int32),
        counts=np.array([len(tokens)], np.int32),
        pages=np.array([pages], np.int32),
        sampled=np.zeros(1, np.int32),
        scrub=np.empty(0, np.int32),
        sampling=Sampling.greedy(1),
    )
    scores = driver.engine.logits(batch)
    assert scores is not None
    return scores[0]


def assert_same(ours: torch.Tensor, oracle: torch.Tensor) -> None:
    torch.testing.assert_close(ours, oracle, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_are_those_of_transformers(name: str, driver: MakeDriver, checkpoint: Checkpoint) -> None:
    server, oracle = driver(name), oracle_logits(checkpoint(name)[1], PROMPT)
    assert_same(logits(server, PROMPT, 0, HOME), oracle[-1])
    for cut in range(1, len(PROMPT)):
        assert_same(logits(server, PROMPT[:cut], 0, HOME), oracle[cut - 1])
        assert_same(logits(server, PROMPT[cut:], cut, HOME), oracle[-1])
    for position, token in enumerate(PROMPT):
        assert_same(logits(server, [token], position, ELSEWHERE), oracle[position])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prefix_that_another_request_computed_gives_the_same_logits(
    name: str, driver: MakeDriver, checkpoint: Checkpoint
) -> None:
    server, other = driver(name), PROMPT[:16] + PROMPT[:9]
    logits(server, PROMPT, 0, HOME)
    shared = logits(server, other[16:], 16, HOME[:4] + ELSEWHERE[4:])
    assert_same(shared, oracle_logits(checkpoint(name)[1], other)[-1])


@pytest.mark.parametrize("name", FAMILIES)
def test_what_was_decoded_and_lost_is_recomputed_in_one_prefill(
    name: str, driver: MakeDriver, checkpoint: Checkpoint
) -> None:
    server, oracle = driver(name), oracle_logits(checkpoint(name)[1], PROMPT)
    logits(server, PROMPT[:9], 0, HOME)
    for position in range(9, 17):
        logits(server, [PROMPT[position]], position, HOME)
    logits(server, PROMPT[::-1], 0, HOME)  # another request takes the pages
    assert_same(logits(server, PROMPT[:17], 0, ELSEWHERE), oracle[16])
    assert_same(logits(server, PROMPT[17:18], 17, ELSEWHERE), oracle[17])


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_tokens_survive_chunks_prefix_hits_and_preemption(
    name: str, driver: MakeDriver, checkpoint: Checkpoint
) -> None:
    prompts = [PROMPT, [*PROMPT[:20], 1, 2], PROMPT[:3], PROMPT[5:15]]
    server = driver(name, num_pages=16, max_prefill_length=13, max_running_requests=4)
    once, again = server.generate(prompts, GREEDY), server.generate(prompts, GREEDY)
    stats = server.scheduler.stats()
    assert stats.preemptions_total > 0
    assert stats.prefix_hit_tokens_total > 0
    assert once == again == [oracle_greedy(checkpoint(name)[1], prompt, 10) for prompt in prompts]


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_topk_prob": False},
        {"num_experts_per_tok": 6},
        {"decoder_sparse_step": 2},
        {"mlp_only_layers": [1]},
        {"decoder_sparse_step": 2, "mlp_only_layers": [1]},
    ],
)
def test_a_mixture_of_experts_in_each_of_its_settings(changes: dict[str, Any], tmp_path: Path) -> None:
    oracle = save_tiny(tmp_path, "qwen3_moe", **changes)
    server = Driver(build_engine(LaunchArgs(model_path=str(tmp_path), device="cpu", page_size=4, num_pages=32)))
    assert_same(logits(server, PROMPT, 0, HOME), oracle_logits(oracle, PROMPT)[-1])


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_can_run_on_random_weights(name: str, driver: MakeDriver) -> None:
    answers = driver(name, dummy_weight=True).generate([PROMPT], GREEDY)
    assert len(answers[0]) == 10
