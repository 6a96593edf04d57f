"""The engine on a GPU: graphs, overlap and ranks change no token."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minisgl.args import LaunchArgs
from minisgl.messages import DecodeParams, Generate, SamplingParams
from minisgl.scheduler.driver import Driver, build_engine
from support.checkpoints import oracle_greedy, save_tiny

PROMPTS = [np.random.default_rng(size).integers(0, 96, size).tolist() for size in (1, 30, 5, 12, 70, 3)]
HEAD_DIM = {"head_dim": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen3")
    save_tiny(path, "qwen3", **HEAD_DIM)
    return path


def driver(folder: Path, **args: Any) -> Driver:
    defaults: dict[str, Any] = {"device": "cuda", "num_pages": 256, "page_size": 16, "memory_ratio": 0.3}
    return Driver(build_engine(LaunchArgs(model_path=str(folder), **(defaults | args))))


@pytest.mark.parametrize(
    "asked",
    [
        {"temperature": 0},
        {"temperature": 0.8, "seed": 5},
        {"temperature": 0.8, "seed": 5, "top_k": 20},
        {"temperature": 0.8, "seed": 5, "repetition_penalty": 1.3, "logprobs": 2},
    ],
    ids=["greedy", "random", "top-k", "penalty"],
)
@pytest.mark.parametrize("cache", ["auto", "fp8"])
def test_graphs_and_overlap_change_no_token(asked: dict[str, Any], cache: str, folder: Path) -> None:
    wanted = SamplingParams(40, ignore_eos=True, **asked)
    args = {"dtype": "bfloat16", "kv_cache_dtype": cache}
    plain = driver(folder, **args, cuda_graph_max_bs=0, overlap="off").generate(PROMPTS, wanted)
    captured = driver(folder, **args, cuda_graph_max_bs=8, overlap="on")
    assert captured.engine.facts().cuda_graph_batch_sizes == [1, 2, 4, 8]
    assert captured.generate(PROMPTS, wanted) == plain


@pytest.mark.parametrize(
    ("prompts", "least"),
    [
        (PROMPTS, 5),  # they end one after the other, so that the batch shrinks
        ([[token] * 16 for token in range(8)], 6),  # a prefill of 128 tokens fills its graph
    ],
    ids=["decode", "prefill"],
)
def test_a_replayed_graph_gives_the_logits_of_its_step_run_kernel_by_kernel_bit_for_bit(
    prompts: list[list[int]], least: int, folder: Path
) -> None:
    server = driver(folder, dtype="bfloat16", cuda_graph_max_bs=8)
    for uid, prompt in enumerate(prompts):
        server.scheduler.add(_ask(uid, prompt, 10 + 6 * uid))
    checked = set()
    original, last = server.engine._logits, server.engine.last
    graphs = server.engine.graphs
    assert graphs is not None

    def compared(batch: Any) -> torch.Tensor | None:
        before = last.clone()
        captured = original(batch)
        if captured is not None and (graph := graphs.find(batch)) is not None:
            captured = captured.clone()
            # The graph has written its tokens already: the second run begins where the graph did.
            after = last.clone()
            last.copy_(before)
            again = graph.run()[1]
            assert again is not None
            assert torch.equal(captured, again[: len(batch.sampled)])
            assert torch.equal(last, after), "both draw the same tokens"
            checked.add((len(batch.tokens), len(batch.counts), server.scheduler.stats().steps_total))
        return captured

    server.engine._logits = compared  # type: ignore[method-assign]
    while server.scheduler.has_work:
        server.step()
    assert len(checked) > least
    assert any(tokens > requests for tokens, requests, _ in checked)


def test_one_request_far_longer_than_the_others_takes_the_graph_that_cuts_its_past(tmp_path: Path) -> None:
    save_tiny(tmp_path, "qwen3", num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=2048, **HEAD_DIM)
    server = driver(tmp_path, dtype="bfloat16", cuda_graph_max_bs=64)
    engine, graphs = server.engine, server.engine.graphs
    assert graphs is not None
    random = np.random.default_rng(0)
    for uid, size in enumerate([1500] + 39 * [6]):  # the long one ends first
        server.scheduler.add(_ask(uid, random.integers(0, 96, size).tolist(), 12 if uid else 6))
    original, last, errors = engine._logits, engine.last, {}

    def compared(batch: Any) -> torch.Tensor | None:
        before = last.clone()
        captured, graph = original(batch), graphs.find(batch)
        if captured is None or graph is None or not graph.shape.is_decode:
            return captured
        captured, after = captured.clone(), last.clone()
        last.copy_(before)
        wanted = torch.arange(len(batch.counts), device="cuda")
        plain = engine.model.forward(*engine._inputs(batch), wanted, engine.attention)
        assert plain is not None
        last.copy_(after)
        error = float((captured.float() - plain.float()).norm() / plain.float().norm())
        errors[graph.shape] = max(error, errors.get(graph.shape, 0.0))
        return captured

    engine._logits = compared  # type: ignore[method-assign]
    while server.scheduler.has_work:
        server.step()
    assert errors.keys() == {(64, 64, 0, True), (64, 64, 0, False)}
    assert max(errors.values()) < 1e-2


def test_float32_answers_are_those_of_transformers(tmp_path: Path) -> None:
    oracle = save_tiny(tmp_path, "qwen3")
    answers = driver(tmp_path, dtype="float32").generate(PROMPTS, SamplingParams(20, temperature=0, ignore_eos=True))
    assert answers == [oracle_greedy(oracle, prompt, 20) for prompt in PROMPTS]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("own_nccl", [True, False], ids=["own", "torch"])
def test_two_gpus_answer_as_one_model(own_nccl: bool, tmp_path: Path) -> None:
    oracle = save_tiny(tmp_path, "qwen3")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | ({} if own_nccl else {"NO_PYNCCL": "1"})
    with tempfile.TemporaryDirectory() as ipc:
        command = [sys.executable, "-m", "support.rank", str(tmp_path), ipc, "2", "on", json.dumps(PROMPTS), "cuda"]
        ranks = [
            subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, env=environment, text=True)
            for rank in range(2)
        ]
        said = [rank.communicate(timeout=120)[0].splitlines()[-1] for rank in ranks]
    first, second = (json.loads(line) for line in said)
    assert first["digests"] == second["digests"]
    assert first["answers"] == [oracle_greedy(oracle, prompt, 12) for prompt in PROMPTS]


def _ask(uid: int, prompt: list[int], max_tokens: int) -> Generate:
    sampling = SamplingParams(max_tokens, temperature=0, ignore_eos=True)
    return Generate(uid, np.array(prompt, np.int32).tobytes(), sampling, DecodeParams())
