"""Logprobs of prompts against transformers' log_softmax: whatever the chunks, the cache, a preemption, the ranks."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch

from minisgl.args import LaunchArgs
from minisgl.distributed.group import Group
from minisgl.engine.batch import Batch, Scores, Scoring
from minisgl.engine.engine import Engine
from minisgl.messages import DecodeParams, Finish, Generate, Opened, SamplingParams
from minisgl.scheduler.driver import Driver, build_engine, unpack
from support.checkpoints import FAMILIES, oracle_greedy, oracle_logits
from support.collectives import Threads

pytestmark = pytest.mark.cpu

MakeDriver = Callable[..., Driver]
Checkpoint = Callable[[str], tuple[Path, Any]]
RANDOM = np.random.default_rng(8)
PROMPT = RANDOM.integers(0, 96, 26).tolist()
TOP = 3


def ask(driver: Driver, *prompts: list[int], **sampling: Any) -> tuple[list[Opened], list[list[int]], list[Finish]]:
    """What opened each request, its tokens, its end."""
    asked: dict[str, Any] = {"max_tokens": 1, "temperature": 0, "ignore_eos": True, "prompt_logprobs": TOP} | sampling
    for uid, prompt in enumerate(prompts):
        ids = np.array(prompt, np.int32).tobytes()
        driver.scheduler.add(Generate(uid, ids, SamplingParams(**asked), DecodeParams()))
    opened: dict[int, Opened] = {}
    tokens: list[list[int]] = [[] for _ in prompts]
    ends: dict[int, Finish] = {}
    while driver.scheduler.has_work or driver.scheduler.results:
        driver.step()
        step = driver.take()
        for opening in step.opened:
            assert opening.uid not in opened, "a request opens once"
            opened[opening.uid] = opening
        for uid, token, finish in unpack(step):
            tokens[uid] += [token] if token >= 0 else []
            if finish:
                ends[uid] = finish
        driver.scheduler.check_integrity()
    order = range(len(prompts))
    return [opened[uid] for uid in order], tokens, [ends[uid] for uid in order]


def assert_told(opened: Opened, oracle: Any, prompt: list[int], num_top: int = TOP) -> None:
    """All of the prompt but its first token, as transformers has it."""
    assert opened.prompt is not None
    assert np.frombuffer(opened.prompt.ids, "<i4").tolist() == prompt
    told = Scores(
        np.frombuffer(opened.prompt.logprobs, "<f4"),
        np.frombuffer(opened.prompt.ranks, "<i4"),
        np.frombuffer(opened.prompt.top_tokens, "<i4").reshape(-1, num_top),
        np.frombuffer(opened.prompt.top, "<f4").reshape(-1, num_top),
    )
    assert_scores(told, oracle, prompt, num_top)


def assert_scores(told: Scores, oracle: Any, prompt: list[int], num_top: int = TOP) -> None:
    logprobs = oracle_logits(oracle, prompt).log_softmax(-1)[:-1]
    own = logprobs.gather(1, torch.tensor(prompt[1:]).unsqueeze(1))
    np.testing.assert_allclose(told.logprobs, own.squeeze(1).numpy(), atol=1e-4, rtol=0)
    np.testing.assert_allclose(told.top, logprobs.topk(num_top).values.numpy(), atol=1e-4, rtol=0)
    np.testing.assert_array_equal(told.top_tokens, logprobs.topk(num_top).indices.numpy())
    np.testing.assert_array_equal(told.ranks, (logprobs > own).sum(-1).numpy() + 1)


@pytest.mark.parametrize("overlap", ["off", "on"])
@pytest.mark.parametrize("chunk", [1, 2, 5, 13, 64])
def test_they_are_those_of_transformers_however_the_prompt_is_cut(
    chunk: int, overlap: str, driver: MakeDriver, checkpoint: Checkpoint
) -> None:
    server, oracle = driver(max_prefill_length=chunk, overlap=overlap), checkpoint("llama")[1]
    (opened,), tokens, _ = ask(server, PROMPT)
    assert_told(opened, oracle, PROMPT)
    assert tokens == [oracle_greedy(oracle, PROMPT, 1)]


@pytest.mark.parametrize("family", FAMILIES)
def test_for_every_family_and_beside_others_that_ask_for_more_or_nothing(
    family: str, driver: MakeDriver, checkpoint: Checkpoint
) -> None:
    server, oracle = driver(family, max_prefill_length=32), checkpoint(family)[1]
    for prompt, count in ((PROMPT[:9], 1), (PROMPT[4:], 5)):
        ids = np.array(prompt, np.int32).tobytes()
        asked = SamplingParams(2, temperature=0, prompt_logprobs=count)
        server.scheduler.add(Generate(100 + count, ids, asked, DecodeParams()))
    server.scheduler.add(Generate(99, np.arange(5, dtype=np.int32).tobytes(), SamplingParams(3), DecodeParams()))
    found: dict[int, Opened] = {}
    while server.scheduler.has_work or server.scheduler.results:
        server.step()
        found |= {opened.uid: opened for opened in server.take().opened}
    assert_told(found[101], oracle, PROMPT[:9], 1)
    assert_told(found[105], oracle, PROMPT[4:], 5)
    assert found[99].prompt is None


def test_a_warm_cache_swallows_no_position(driver: MakeDriver, checkpoint: Checkpoint) -> None:
    server, oracle = driver(), checkpoint("llama")[1]
    server.generate([PROMPT, PROMPT], SamplingParams(1, temperature=0))
    for _ in range(2):
        (opened,), _, _ = ask(server, PROMPT)
        assert_told(opened, oracle, PROMPT)
        assert opened.cached_tokens == 0
    (other,), _, _ = ask(server, PROMPT, prompt_logprobs=None)
    assert (other.prompt, other.cached_tokens) == (None, 24), "others find what it has computed"


def test_a_preemption_in_the_middle_of_a_prompt_loses_nothing(
    driver: MakeDriver, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, oracle = driver(num_pages=16, max_prefill_length=4, max_running_requests=4), checkpoint("llama")[1]
    known: list[int] = []
    leave = server.scheduler._leave

    def noting(row: int) -> Any:
        request = leave(row)
        if request.uid in server.scheduler._known and request.scores is not None:
            known.append(request.scores.num_known)
        return request

    monkeypatch.setattr(server.scheduler, "_leave", noting)
    prompts = [RANDOM.integers(0, 96, size).tolist() for size in (8, 8, 8, 30)]
    opened, tokens, _ = ask(server, *prompts, max_tokens=30)
    assert any(0 < count < 29 for count in known), "one of them was preempted half-way"
    for opening, prompt in zip(opened, prompts, strict=True):
        assert_told(opening, oracle, prompt)
    assert tokens == [oracle_greedy(oracle, prompt, 30) for prompt in prompts]


def test_without_an_answer_only_the_prompt_is_told(driver: MakeDriver, checkpoint: Checkpoint) -> None:
    server, oracle = driver(max_prefill_length=7), checkpoint("llama")[1]
    opened, tokens, ends = ask(server, PROMPT, PROMPT[:1], max_tokens=0, logprobs=2, ignore_eos=False)
    assert (tokens, ends) == ([[], []], [Finish.LENGTH] * 2)
    assert_told(opened[0], oracle, PROMPT)
    assert opened[1].prompt is not None
    assert (len(opened[1].prompt.ids), opened[1].prompt.logprobs) == (4, b""), "of one token nothing can be said"


def test_two_ranks_say_the_same(checkpoint: Checkpoint) -> None:
    folder, oracle = checkpoint("qwen3+yarn")
    args = LaunchArgs(model_path=str(folder), device="cpu", page_size=4, num_pages=16, tensor_parallel_size=2)
    table, barrier = [torch.empty(0)] * 2, Barrier(2)

    def batch(start: int, end: int, rank: int) -> Batch:
        last = end == len(PROMPT)
        scored = np.arange(end - start - last, dtype=np.int32)
        whole = Batch(
            rows=np.zeros(1, np.int32),
            tokens=np.array(PROMPT[start:end], np.int32),
            starts=np.array([start], np.int32),
            counts=np.array([end - start], np.int32),
            pages=np.arange(7, dtype=np.int32)[None],
            sampled=np.empty(0, np.int32),
            scrub=np.empty(0, np.int32),
            scored=scored,
            scoring=Scoring(np.array(PROMPT[start + 1 : end + 1], np.int64), TOP),
        )
        return whole if rank == 0 else Batch.unpack(whole.pack())

    def run(rank: int) -> list[Scores | None]:
        engine: Engine = build_engine(args, Group(rank, 2, Threads(rank, table, barrier)))
        return [engine.launch(batch(*chunk, rank))().scores for chunk in ((0, 11), (11, len(PROMPT)))]

    with ThreadPoolExecutor(2) as pool:
        first, other = pool.map(run, range(2))
    assert other == [None, None]
    parts = [part for part in first if part is not None]
    assert_scores(Scores(*map(np.concatenate, zip(*parts, strict=True))), oracle, PROMPT)
