"""The largest step that a configuration allows."""

from dataclasses import replace
from typing import Any

import pytest

from minisgl.args import LaunchArgs
from minisgl.engine.trial import largest_step, mixed_step
from minisgl.plan.config import EngineConfig
from support.shapes import SMALL

MODEL = replace(SMALL, context_length=256)


@pytest.mark.parametrize(
    ("args", "tokens", "requests"),
    [
        ({}, 4096, 256),
        ({"max_prefill_length": 1000}, 1000, 256),
        ({"max_running_requests": 3}, 768, 3),  # a request has 256 tokens at most
        ({"max_prefill_length": 7}, 7, 7),
    ],
)
def test_it_has_all_the_tokens_and_requests_that_a_step_can_have(
    args: dict[str, Any], tokens: int, requests: int
) -> None:
    config = EngineConfig.resolve(LaunchArgs(model_path="m", **args), MODEL, "cuda", [])
    batch = largest_step(config)
    assert (len(batch.tokens), len(batch.counts), len(batch.sampled)) == (tokens, requests, requests)
    assert int(batch.counts.sum()) == tokens
    assert 1 <= batch.counts.min() <= batch.counts.max() <= MODEL.context_length
    assert batch.pages.shape == (requests, -(-int(batch.counts.max()) // config.page_size))


@pytest.mark.parametrize(
    "args", [{}, {"max_running_requests": 3}, {"max_prefill_length": 7}, {"max_running_requests": 1}]
)
def test_a_mixed_step_is_as_large_and_half_of_it_decodes(args: dict[str, Any]) -> None:
    config = EngineConfig.resolve(LaunchArgs(model_path="m", **args), MODEL, "cuda", [])
    batch, largest = mixed_step(config), largest_step(config)
    singles = config.num_rows // 2
    assert len(batch.counts) == len(largest.counts)
    assert (batch.counts[:singles] == 1).all()
    assert 1 <= batch.counts.min() <= batch.counts.max() <= MODEL.context_length
    assert int(batch.counts.sum()) == len(batch.tokens) <= config.max_step_tokens
    assert batch.pages.shape == (len(batch.counts), -(-int(batch.counts.max()) // config.page_size))
