"""The GPU's way to draw, with the kernel's twin in its place: what is asked beyond a temperature still holds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from minisgl.args import LaunchArgs
from minisgl.engine.batch import NOTHING, Batch, Extras, Sampled, Sampling
from minisgl.engine.engine import Engine, Result
from minisgl.engine.sampler import draw_again, draw_plainly
from minisgl.kernels import draw as draw_module
from minisgl.messages import SamplingParams
from minisgl.scheduler.driver import Driver, build_engine

pytestmark = pytest.mark.cpu

PROBS = np.array([0.05, 0.4, 0.1, 0.3, 0.15])
DRAWS = 20_000
NONE = np.empty(0, np.int64)
NO_EXTRAS = Extras(
    penalised_at=NONE,
    presence=np.empty(0, np.float32),
    frequency=np.empty(0, np.float32),
    repetition=np.empty(0, np.float32),
    prompt_len=NONE,
    history_len=NONE,
    history=NONE,
    bias_at=NONE,
    bias_token=NONE,
    bias=np.empty(0, np.float32),
    logprobs_at=NONE,
    num_top=NONE,
    held_at=NONE,
    masks=np.empty((0, 0), np.int32),
)


@pytest.fixture(autouse=True)
def _twin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw_module, "draw", draw_module.draw_twin)


def choose(logits: torch.Tensor, sampling: Sampling) -> Sampled:
    rows = np.arange(len(logits), dtype=np.int32)
    last = torch.zeros(len(logits), dtype=torch.int64)
    plain = draw_plainly(logits, sampling, rows, last)
    result = draw_again(plain, logits, sampling, rows, last, torch.zeros_like(last)).send_home()()
    assert result.failed.dtype == np.bool_
    assert last.tolist() == result.tokens.tolist()
    return result


def asking(count: int, **columns: Any) -> Sampling:
    plain = replace(
        Sampling.greedy(count),
        temperature=np.ones(count, np.float32),
        seeds=np.arange(count, dtype=np.uint64) << np.uint64(40),
        positions=np.full(count, 3, np.int32),
    )
    return replace(plain, **columns)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("top_k", 2, [0, 4 / 7, 0, 3 / 7, 0]),
        ("top_p", 0.75, [0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85]),
        ("min_p", 0.3, [0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85]),
    ],
)
def test_what_is_ruled_out_never_comes_and_the_rest_in_proportion(
    name: str, value: float, expected: list[float]
) -> None:
    logits = torch.from_numpy(np.log(PROBS)).float().repeat(DRAWS, 1)
    column = np.full(DRAWS, value, np.int32 if name == "top_k" else np.float32)
    tokens = choose(logits, asking(DRAWS, **{name: column})).tokens
    shares, wanted = np.bincount(tokens, minlength=5) / DRAWS, np.array(expected)
    possible = wanted > 0
    assert not shares[~possible].any()
    assert DRAWS * ((shares - wanted)[possible] ** 2 / wanted[possible]).sum() < 23.5


def test_a_row_draws_the_same_whatever_it_or_its_neighbours_ask_in_vain() -> None:
    logits = torch.randn(8, 50, generator=torch.Generator().manual_seed(1))
    alone = choose(logits, asking(8)).tokens
    top_k = np.zeros(8, np.int32)
    top_k[[1, 4]] = 50, 3
    extras = replace(NO_EXTRAS, logprobs_at=np.array([2, 6]), num_top=np.array([1, 3]))
    mixed = choose(logits, asking(8, top_k=top_k, extras=extras))
    same = np.arange(8) != 4
    assert mixed.tokens[same].tolist() == alone[same].tolist()
    assert set(mixed.logprobs) == {2, 6}
    report = mixed.logprobs[6]
    assert report.token == mixed.tokens[6]
    assert report.logprob == pytest.approx(float(logits[6].log_softmax(-1)[report.token]), abs=1e-5)


def test_what_a_graph_drew_for_padding_stays_behind() -> None:
    logits = torch.randn(5, 50, generator=torch.Generator().manual_seed(1))
    rows, last = np.arange(5, dtype=np.int32), torch.zeros(5, dtype=torch.int64)
    whole = draw_plainly(logits, asking(5), rows, last)
    drawn = draw_again(whole.clone(), logits[:3], asking(3, top_k=np.int32([0, 1, 0])), rows[:3], last, last[:3])
    assert drawn.chosen.is_contiguous(), "one copy brings it home"
    result = drawn.send_home()()
    assert result.failed.tolist() == [False] * 3
    assert result.tokens.tolist() == [int(whole[0, 0]), int(logits[1].argmax()), int(whole[0, 2])]


def test_a_bias_reaches_its_row_alone() -> None:
    logits = torch.zeros(3, 9)
    extras = replace(NO_EXTRAS, bias_at=np.array([1]), bias_token=np.array([7]), bias=np.array([100.0], np.float32))
    biased, plain = choose(logits, asking(3, extras=extras)), choose(logits, asking(3))
    assert biased.tokens[1] == 7
    assert biased.tokens[[0, 2]].tolist() == plain.tokens[[0, 2]].tolist()


def test_a_whole_engine_draws_so(
    checkpoint: Callable[[str], tuple[Path, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = checkpoint("llama")
    prompts = [[5, 6, 7], [8], [9, 10, 11, 12]]

    def answers(**asked: Any) -> list[list[int]]:
        driver = Driver(build_engine(LaunchArgs(model_path=str(folder), page_size=4, num_pages=64, device="cpu")))
        return driver.generate(prompts, SamplingParams(12, ignore_eos=True, **asked))

    greedy = answers(temperature=0)

    def compute(self: Engine, batch: Batch) -> Result:
        with torch.inference_mode():
            logits = self._logits(batch)
            return self._compute_next(batch, logits) if len(batch.sampled) else lambda: NOTHING

    monkeypatch.setattr(Engine, "_compute", compute)
    assert answers(temperature=0) == greedy
    assert answers(temperature=0, repetition_penalty=1.0, logprobs=2) == greedy
    drawn = answers(temperature=0.9, seed=4)
    assert drawn == answers(temperature=0.9, seed=4, logprobs=1) != greedy
