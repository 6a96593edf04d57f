"""`latency`: a few prompts at a time; how long until the first token, and between tokens."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from minisgl.args import LaunchArgs
from minisgl.bench.report import Report
from minisgl.bench.workload import equal_prompts
from minisgl.errors import UsageError
from minisgl.llm import LLM, SamplingParams

PERCENTILES = (50, 90, 99)


def measure(args: LaunchArgs, own: argparse.Namespace) -> Report:
    """Load the model, then all rounds of each batch size. A first round of each size warms up and is not counted."""
    if max(own.batch_sizes) > args.max_running_requests:
        raise UsageError(
            f"--batch-sizes {max(own.batch_sizes)} is more than --max-running-requests {args.max_running_requests}: "
            "the rest would wait, not run; raise it or measure smaller batches"
        )
    with LLM(**args.model_dump(by_alias=False)) as llm:
        facts = llm.facts
        if own.input_len + own.output_len > facts.context_length:
            raise UsageError(
                f"--input-len {own.input_len} plus --output-len {own.output_len} is more than the context of "
                f"{facts.context_length}; lower one of them"
            )
        with tqdm(total=len(own.batch_sizes) * (own.rounds + 1), unit=" batches", disable=None) as bar:
            rows = []
            for size in own.batch_sizes:
                rounds = []
                for _ in range(own.rounds + 1):
                    rounds.append(_Round(llm, size, own.input_len, own.output_len))
                    bar.set_postfix_str(f"batch of {size}", refresh=False)
                    bar.update()
                rows.append(_row(size, rounds[1:]))
    workload = {"input_len": own.input_len, "output_len": own.output_len, "rounds": own.rounds}
    note = f"{own.input_len} tokens in, {own.output_len} out, greedy, {own.rounds} rounds"
    return Report("latency", args.model_path, facts, workload, rows, [note], {})


class _Round:
    """One batch, computed and timed: when each request got each of its tokens."""

    seeds = 0  # every batch of a run has other prompts, so that no prefix is found in the cache

    def __init__(self, llm: LLM, size: int, input_len: int, output_len: int) -> None:
        _Round.seeds += 1
        self.times: list[tuple[float, NDArray[np.int64]]] = []
        prompts = equal_prompts(size, input_len, llm.vocab_size, _Round.seeds)
        params = SamplingParams(temperature=0, max_tokens=output_len, ignore_eos=True)
        self.began = time.perf_counter()
        llm.generate(prompts, params, progress=lambda indices: self.times.append((time.perf_counter(), indices)))
        self.seconds = time.perf_counter() - self.began
        self.num_tokens = sum(len(indices) for _, indices in self.times)

    def first_and_between(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Seconds to each request's first token, and between the tokens of each."""
        at = np.repeat([moment for moment, _ in self.times], [len(indices) for _, indices in self.times])
        owner = np.concatenate([indices for _, indices in self.times])
        order = np.argsort(owner, kind="stable")
        at, owner = at[order], owner[order]
        is_first = np.r_[True, owner[1:] != owner[:-1]]
        return at[is_first] - self.began, np.diff(at)[~is_first[1:]]


def _row(size: int, rounds: list[_Round]) -> dict[str, Any]:
    first, between = (
        np.concatenate(parts) for parts in zip(*(each.first_and_between() for each in rounds), strict=True)
    )
    row: dict[str, Any] = {"batch": size}
    for name, seconds in (("first", first), ("between", between)):
        for percent in PERCENTILES:
            row[f"{name}_p{percent}_ms"] = (
                round(float(np.percentile(seconds, percent)) * 1000, 2) if len(seconds) else 0.0
            )
    row["tokens_per_s"] = round(sum(each.num_tokens for each in rounds) / sum(each.seconds for each in rounds), 1)
    return row
