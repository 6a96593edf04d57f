"""The largest step that a configuration allows."""

from dataclasses import replace
from typing import Any

import pytest

from minisgl.args import LaunchArgs
from minisgl.engine.config import EngineConfig
from minisgl.engine.trial import largest_step
from support.shapes import SMALL

MODEL = replace(SMALL, context_length=256)


@pytest.mark.parametrize(
    ("args", "tokens", "requests"),
    [
        ({}, 8192, 256),
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
