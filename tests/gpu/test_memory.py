"""A start that succeeds does not run out of memory later: nearly all memory given away, then the largest steps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minisgl.args import LaunchArgs
from minisgl.messages import SamplingParams
from minisgl.scheduler.driver import Driver, build_engine

QWEN3_06B = {
    "architectures": ["Qwen3ForCausalLM"],
    "vocab_size": 151936,
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "intermediate_size": 3072,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "max_position_embeddings": 40960,
    "torch_dtype": "bfloat16",
    "eos_token_id": 1,
    "tie_word_embeddings": True,
}


def test_the_largest_steps_fit_beside_a_cache_of_nearly_all_memory(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_06B))
    launch = LaunchArgs(model_path=str(tmp_path), dummy_weight=True, memory_ratio=0.99, max_running_requests=256)
    server = Driver(build_engine(launch))
    facts = server.engine.facts()
    assert facts.kv_cache.limited_by == "memoryRatio"
    total = torch.cuda.mem_get_info()[1]
    assert facts.kv_cache.bytes > 0.9 * total, "what is set aside for a step is not most of the memory"
    prompts = [np.random.default_rng(i).integers(0, 100_000, 64).tolist() for i in range(256)]
    everything: dict[str, Any] = {"top_k": 50, "top_p": 0.9, "repetition_penalty": 1.1, "logprobs": 20}
    # 8,192 tokens in a step; then 256 rows that are all sorted, penalised and reported.
    asked = SamplingParams(4, temperature=0.8, ignore_eos=True, **everything)
    assert [len(answer) for answer in server.generate(prompts, asked)] == [4] * 256
    long = np.random.default_rng(1).integers(0, 100_000, 40_000).tolist()
    assert len(server.generate([long], SamplingParams(2, ignore_eos=True))[0]) == 2
