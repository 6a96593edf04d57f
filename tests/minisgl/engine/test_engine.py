"""The engine's logits against transformers, however the same tokens are cut into steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minisgl.engine.batch import Batch, Sampling
from minisgl.scheduler.driver import Driver
from support.checkpoints import FAMILIES, oracle_logits

pytestmark = pytest.mark.cpu

MakeDriver = Callable[..., Driver]
Checkpoint = Callable[[str], tuple[Path, Any]]
PROMPT = np.random.default_rng(1).integers(0, 96, 41).tolist()


def make_batch(parts: list[tuple[list[int], int, list[int]]], scrub: tuple[int, ...] = ()) -> Batch:
    """One step of (tokens, start, pages) per request; every request samples greedily."""
    n, width = len(parts), max(len(pages) for _, _, pages in parts)
    return Batch(
        rows=np.arange(n, dtype=np.int32),
        tokens=np.concatenate([np.array(tokens, np.int32) for tokens, _, _ in parts]),
        starts=np.array([start for _, start, _ in parts], np.int32),
        counts=np.array([len(tokens) for tokens, _, _ in parts], np.int32),
        pages=np.array([pages + [0] * (width - len(pages)) for _, _, pages in parts], np.int32),
        sampled=np.arange(n, dtype=np.int32),
        scrub=np.array(scrub, np.int32),
        sampling=Sampling.greedy(n),
    )


def logits(driver: Driver, parts: list[tuple[list[int], int, list[int]]]) -> torch.Tensor:
    scores = driver.engine.logits(make_batch(parts))
    assert scores is not None
    return scores


@pytest.mark.parametrize("family", FAMILIES)
def test_prefill_gives_the_logits_of_transformers(family: str, driver: MakeDriver, checkpoint: Checkpoint) -> None:
    ours = logits(driver(family), [(PROMPT, 0, list(range(20, 31)))])
    torch.testing.assert_close(ours[0], oracle_logits(checkpoint(family)[1], PROMPT)[-1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cut", [1, 3, 4, 17, 32, 40])
def test_a_prompt_cut_anywhere_gives_the_same_logits(
    family: str, cut: int, driver: MakeDriver, checkpoint: Checkpoint
) -> None:
    engine, pages, oracle = (
        driver(family),
        [7, 3, 9, 1, 0, 5, 2, 8, 4, 6, 10],
        oracle_logits(checkpoint(family)[1], PROMPT),
    )
    first = logits(engine, [(PROMPT[:cut], 0, pages)])
    rest = logits(engine, [(PROMPT[cut:], cut, pages)])
    torch.testing.assert_close(first[0], oracle[cut - 1], atol=1e-4, rtol=0)
    torch.testing.assert_close(rest[0], oracle[-1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("page_size", [1, 4, 16])
def test_token_by_token_gives_the_same_logits(
    family: str, page_size: int, driver: MakeDriver, checkpoint: Checkpoint
) -> None:
    engine, oracle = driver(family, page_size=page_size), oracle_logits(checkpoint(family)[1], PROMPT)
    pages = list(range(-(-len(PROMPT) // page_size)))
    for position, token in enumerate(PROMPT):
        ours = logits(engine, [([token], position, pages)])
        torch.testing.assert_close(ours[0], oracle[position], atol=1e-4, rtol=0)


def test_a_step_may_mix_decodes_of_any_length_with_prefills(driver: MakeDriver, checkpoint: Checkpoint) -> None:
    engine, oracle = driver("qwen3"), oracle_logits(checkpoint("qwen3")[1], PROMPT)
    homes = [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [11, 12, 13], list(range(14, 25)), list(range(25, 36))]
    logits(engine, [(PROMPT[:40], 0, homes[0]), (PROMPT[:9], 0, homes[1]), (PROMPT[:6], 0, homes[2])])
    mixed = logits(
        engine,
        [
            (PROMPT[40:], 40, homes[0]),  # decode, long
            (PROMPT[9:10], 9, homes[1]),  # decode, short
            (PROMPT[6:30], 6, homes[2]),  # a later chunk
            (PROMPT[:23], 0, homes[3]),  # a new prompt
        ],
    )
    for row, position in enumerate([40, 9, 29, 22]):
        torch.testing.assert_close(mixed[row], oracle[position], atol=1e-4, rtol=0)


def test_bfloat16_is_close_to_float32(driver: MakeDriver, checkpoint: Checkpoint) -> None:
    ours = logits(driver(dtype="bfloat16"), [(PROMPT, 0, list(range(11)))])
    oracle = oracle_logits(checkpoint("llama")[1], PROMPT)[-1]
    assert torch.nn.functional.cosine_similarity(ours[0].float(), oracle, dim=0) > 0.999


def test_a_row_with_nan_fails_alone_and_its_pages_are_scrubbed(driver: MakeDriver) -> None:
    engine = driver().engine
    with torch.inference_mode():
        engine.pool.k[:, 5] = float("nan")
    batch = make_batch([(PROMPT[1:2], 1, [5]), (PROMPT[:1], 0, [6])])
    sampled = engine.launch(batch)()
    assert sampled.failed.tolist() == [True, False]
    sampled = engine.launch(make_batch([(PROMPT[:1], 0, [5])], scrub=(5,)))()
    assert not sampled.failed.any()
    assert torch.isfinite(engine.pool.k[:, 5]).all()


def test_the_facts_are_what_was_built(driver: MakeDriver) -> None:
    facts = driver(num_pages=20, max_seq_len_override=100).engine.facts()
    assert (facts.kv_cache.pages, facts.kv_cache.tokens, facts.kv_cache.limited_by) == (20, 80, "numPages")
    assert facts.context_length == 80, "a request must fit into the cache alone"
    assert facts.kv_cache.bytes == 21 * 4 * 2 * 2 * 2 * 16 * 4  # one page more than requests get
    assert (facts.dtype, facts.attention_backend, facts.architecture) == (
        "float32",
        driver().engine.config.attention_backend,
        "LlamaForCausalLM",
    )


def test_warming_up_leaves_the_engine_usable(driver: MakeDriver, checkpoint: Checkpoint) -> None:
    engine = driver()
    engine.engine.warm_up()
    ours = logits(engine, [(PROMPT, 0, list(range(11)))])
    torch.testing.assert_close(ours[0], oracle_logits(checkpoint("llama")[1], PROMPT)[-1], atol=1e-4, rtol=0)
