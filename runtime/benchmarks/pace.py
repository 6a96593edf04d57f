"""How evenly tokens come while long prompts are read, by the size of a step: the real scheduler on a clock of a model.

    .venv/bin/python runtime/benchmarks/pace.py [--rate 22.5] [--steps 96 128 144 160 256]

12 seconds of Poisson arrivals with prompts and answers of 100 to 1,024 tokens, and a prompt of 8,000 every second. What
a step takes is not measured but a sum that was fitted to Qwen3-0.6B on an H200 (`results/gpu_serve.json`, steps of 128
tokens: 2.34 and 3.52 ms between tokens at p50 and p99 without the long prompts, 2.90 and 4.96 with them):

    2.05 ms + 0.0045 for each token
            + 0.35 where there are prompts + 2.9e-6 for each pair of a prompt's token and one before it

So it tells which of two ways is more even, and about how much, before a GPU is asked. `even` is as in
scheduler/budget.py: none, the model's own, and half of it. Prints a row a way, writes results/pace.json.
"""

from __future__ import annotations

import argparse
import json
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from report import write

from minisgl.engine.batch import Batch, Sampled
from minisgl.kvcache.naive import NaivePrefixCache
from minisgl.messages import DecodeParams, Generate, SamplingParams
from minisgl.scheduler.config import SchedulerConfig
from minisgl.scheduler.scheduler import Scheduler

SECONDS, LONG = 12, 8000
STEP_MS, TOKEN_MS, PROMPTS_MS, PAIR_MS = 2.05, 0.0045, 0.35, 2.9e-6
EVEN = 7680  # Qwen3-0.6B's, by plan/pace.py
Arrival = tuple[float, int, int, int]  # seconds, uid, tokens of the prompt and of the answer


def arrivals(rate: float, *, long: bool) -> list[Arrival]:
    random = np.random.default_rng(3)
    found: list[tuple[float, int, int]] = []
    at = 0.0
    while at < SECONDS:
        at += random.exponential(1 / rate)
        found.append((at, int(random.integers(100, 1025)), int(random.integers(100, 1025))))
    if long:
        found += [(second + random.random() / 5, LONG, 8) for second in range(SECONDS - 2)]
    return [(at, uid, prompt, answer) for uid, (at, prompt, answer) in enumerate(sorted(found))]


def step_ms(batch: Batch) -> float:
    prompts = batch.counts > 1
    took = STEP_MS + TOKEN_MS * float(batch.counts.sum())
    if prompts.any():
        counts, starts = batch.counts[prompts].astype(float), batch.starts[prompts]
        took += PROMPTS_MS + PAIR_MS * float((counts * (starts + counts / 2)).sum())
    return took


def simulate(step_tokens: int, even: int | None, rate: float, *, long: bool) -> dict[str, Any]:
    limits = SchedulerConfig(
        num_pages=4096,
        page_size=128,
        max_running=256,
        max_step_tokens=step_tokens,
        context_length=9216,
        vocab_size=1000,
        even_past=even,
    )
    scheduler = Scheduler(limits, NaivePrefixCache(limits.page_size), seed=0)
    coming = deque(arrivals(rate, long=long))
    begun = {uid: (at, prompt) for at, uid, prompt, _ in coming}
    last: dict[int, float] = {}
    now, between, first, long_first = 0.0, [], [], []
    while coming or scheduler.has_work:
        if not scheduler.has_work:
            now = max(now, coming[0][0])
        while coming and coming[0][0] <= now:
            _, uid, prompt, answer = coming.popleft()
            sampling = SamplingParams(answer, temperature=0, ignore_eos=True)
            scheduler.add(Generate(uid, np.full(prompt, 5, np.int32).tobytes(), sampling, DecodeParams()))
        batch = scheduler.plan()
        assert batch is not None, "something is waiting, and nothing is in flight"
        now += step_ms(batch) / 1000
        count = len(batch.sampled)
        scheduler.complete(Sampled(np.full(count, 7, np.int32), np.zeros(count, bool), {}))
        step = scheduler.results.take(None)
        for uid in np.frombuffer(step.uids, np.int64).tolist():
            if uid in last:
                between.append(now - last[uid])
            else:
                (long_first if begun[uid][1] == LONG else first).append(now - begun[uid][0])
            last[uid] = now
    p50, p99 = np.percentile(between, [50, 99]) * 1000
    return {
        "step_tokens": step_tokens,
        "even": even,
        "long_prompts": long,
        "between_p50_ms": round(p50, 2),
        "between_p99_ms": round(p99, 2),
        "p99_over_p50": round(p99 / p50, 2),
        "first_p50_ms": round(float(np.median(first)) * 1000, 1),
        "long_first_p50_ms": round(float(np.median(long_first)) * 1000, 1) if long_first else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=22.5, help="requests per second, without the long ones")
    parser.add_argument("--steps", type=int, nargs="+", default=[96, 128, 144, 160, 256], help="tokens of a step")
    asked = parser.parse_args()
    rows = []
    for step_tokens in asked.steps:
        for even, long in ((None, False), (None, True), (EVEN, True), (EVEN // 2, True)):
            rows.append(simulate(step_tokens, even, asked.rate, long=long))
            print(json.dumps(rows[-1]), flush=True)
    what = "the real scheduler on a model's clock, fitted to Qwen3-0.6B on an H200: how evenly tokens come"
    write(Path(__file__), {"what": what, "rate": asked.rate, "rows": rows})


if __name__ == "__main__":
    main()
