"""What scheduling a step costs the CPU at batch 256: the real scheduler, a fake engine that answers at once.

    .venv/bin/python runtime/benchmarks/scheduler.py

Prompts of 100 to 1024 random tokens, radix cache, pages of 1 and 16 tokens. "decode": 256 running requests and
nothing else, the step that happens thousands of times; the sum of its parts' medians is the figure to watch. "steady":
requests end after 100 to 1024 tokens and new ones take their place, so a step also admits, prefills and feeds the
prefix cache; the mean counts all of that. Prints a table, writes results/scheduler.json.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
from report import write

from minisgl.engine.batch import Batch, Sampled
from minisgl.kvcache.radix import RadixPrefixCache
from minisgl.messages import DecodeParams, Generate, SamplingParams, Step
from minisgl.scheduler.config import SchedulerConfig
from minisgl.scheduler.scheduler import Scheduler

RUNNING, CONTEXT, VOCAB, EOS = 256, 4096, 50_000, 2
SHORTEST, LONGEST = 100, 1024  # tokens of a prompt, and of an answer
STEPS, PARTS = 400, ("plan", "complete", "take", "encode")
TARGET_MS = 0.3

Times = dict[str, list[float]]


def make(page_size: int) -> Scheduler:
    """Room for every request at its longest: nothing is preempted, the step's own cost shows."""
    limits = SchedulerConfig(
        num_pages=RUNNING * CONTEXT // page_size,
        page_size=page_size,
        max_running=RUNNING,
        max_step_tokens=8192,
        context_length=CONTEXT,
        vocab_size=VOCAB,
        eos_token_ids=(EOS,),
    )
    return Scheduler(limits, RadixPrefixCache(page_size), seed=0)


def drive(scheduler: Scheduler, going: Callable[[], bool]) -> Times:
    """Step while `going`, and time each part: the one place that knows how a step is driven.

    As with overlap: each step is planned before the one before it is complete.
    """
    random, encoder = np.random.default_rng(1), msgspec.msgpack.Encoder()
    times: Times = {part: [] for part in PARTS}
    flying: deque[Batch] = deque()
    while going() or flying:
        marks = [time.perf_counter()]
        batch = scheduler.plan() if going() else None
        marks.append(time.perf_counter())
        if batch is not None:
            flying.append(batch)
            if len(flying) == 1:
                continue
        rows = len(flying.popleft().sampled)
        sampled = Sampled(random.integers(EOS + 1, VOCAB, rows, dtype=np.int32), np.zeros(rows, bool))
        marks.append(time.perf_counter())
        scheduler.complete(sampled)
        marks.append(time.perf_counter())
        step: Step = scheduler.results.take(scheduler.stats())
        marks.append(time.perf_counter())
        encoder.encode(step)
        marks.append(time.perf_counter())
        spent = np.diff(marks)[[0, 2, 3, 4]]
        for part, seconds in zip(PARTS, spent.tolist(), strict=True):
            times[part].append(seconds * 1000)
    return {part: ms[:-1] for part, ms in times.items()}  # the last one only completes


def requests(max_tokens: Callable[[], int]) -> Iterator[Generate]:
    random = np.random.default_rng(0)
    uid = 0
    while True:
        ids = random.integers(EOS + 1, VOCAB, random.integers(SHORTEST, LONGEST + 1), dtype=np.int32)
        yield Generate(uid, ids.tobytes(), SamplingParams(max_tokens(), temperature=0.7, seed=uid), DecodeParams())
        uid += 1


def decode(page_size: int) -> Times:
    """256 requests that all run to the end of the measurement."""
    scheduler, new = make(page_size), requests(lambda: CONTEXT - LONGEST)
    for _ in range(RUNNING):
        scheduler.add(next(new))
    # The budget of a step is 8192 tokens, so the prompts take some steps; then every step is pure decode.
    drive(scheduler, lambda: scheduler.stats().prefix_query_tokens_total == 0 or prefilling(scheduler))
    until = scheduler.stats().steps_total + STEPS
    return drive(scheduler, lambda: scheduler.stats().steps_total < until)


def prefilling(scheduler: Scheduler) -> bool:
    rows = scheduler._rows
    return len(scheduler._waiting) > 0 or bool((rows.length - rows.computed)[rows.used].max() > 1)


def steady(page_size: int) -> Times:
    """256 running, a new request for each that ends."""
    random = np.random.default_rng(2)
    scheduler, new = make(page_size), requests(lambda: int(random.integers(SHORTEST, LONGEST + 1)))

    def refilled(last: int) -> bool:
        stats = scheduler.stats()
        for _ in range(RUNNING - stats.running - stats.waiting):
            scheduler.add(next(new))
        return stats.steps_total < last

    drive(scheduler, lambda: refilled(LONGEST))  # until the requests' ages are mixed
    return drive(scheduler, lambda: refilled(LONGEST + STEPS))


def main() -> None:
    rows = []
    print(f"ms per step, median (mean): target {TARGET_MS} for the sum of a decode step's medians")
    for name, measure in (("decode", decode), ("steady", steady)):
        for page_size in (1, 16):
            times = measure(page_size)
            median = {part: round(float(np.median(ms)), 4) for part, ms in times.items()}
            mean = {part: round(float(np.mean(ms)), 4) for part, ms in times.items()}
            total = {"median": round(sum(median.values()), 3), "mean": round(sum(mean.values()), 3)}
            rows.append({"load": name, "page_size": page_size, "median_ms": median, "mean_ms": mean, "total_ms": total})
            parts = "  ".join(f"{part} {median[part]:.3f} ({mean[part]:.3f})" for part in PARTS)
            print(f"{name:7} page {page_size:2}:  {parts}  sum {total['median']:.3f} ({total['mean']:.3f})", flush=True)
    what = f"CPU milliseconds of scheduling one step, {RUNNING} running requests, radix, {STEPS} steps"
    write(Path(__file__), {"what": what, "target_ms": TARGET_MS, "rows": rows})


if __name__ == "__main__":
    main()
