"""The largest step that a configuration allows."""

from typing import Any

import pytest

from minisgl.args import LaunchArgs
from minisgl.engine.config import EngineConfig
from minisgl.engine.trial import largest_step
from minisgl.models.config import ModelConfig, RopeConfig

MODEL = ModelConfig(
    architecture="LlamaForCausalLM",
    vocab_size=1000,
    hidden_size=64,
    intermediate_size=128,
    num_layers=2,
    num_heads=8,
    num_kv_heads=4,
    head_dim=8,
    context_length=256,
    norm_eps=1e-5,
    rope=RopeConfig(),
    tied_embeddings=True,
    qkv_bias=False,
    output_bias=False,
    mlp_bias=False,
    qk_norm=False,
    dtype="bfloat16",
    eos_token_ids=(2,),
)


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
