"""How evenly tokens come while long prompts are read, and which steps are to blame: the engine in one process.

    python3 runtime/benchmarks/gpu_pace.py [--shape qwen3-0.6b] [--rate 22.5] [--step 128]

12 seconds of Poisson arrivals with prompts and answers of 100 to 1,024 tokens, once alone and once with a prompt of
8,000 every second, in steps of at most `--step` tokens; random weights. For each: milliseconds between a request's
tokens, to the first token, and each kind of step with what it took at p50 and p99: its graph, and the longest past of a
running request and of a prompt. Writes results/gpu_pace.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import write

from gpu import COMMON, SHAPES
from minisgl.args import LaunchArgs
from minisgl.engine.batch import Batch
from minisgl.messages import DecodeParams, Generate, SamplingParams
from minisgl.scheduler.driver import Driver, build_engine

SECONDS, LONG = 12, 8000
PASTS = (0, 2000, 4000, 6000)  # the kinds that pasts are put into
Arrival = tuple[float, int, int]  # seconds, tokens of the prompt and of the answer


def arrivals(rate: float, *, long: bool) -> list[Arrival]:
    random = np.random.default_rng(3)
    found: list[Arrival] = []
    at = 0.0
    while at < SECONDS:
        at += random.exponential(1 / rate)
        found.append((at, int(random.integers(100, 1025)), int(random.integers(100, 1025))))
    if long:
        found += [(second + random.random() / 5, LONG, 8) for second in range(SECONDS - 2)]
    return sorted(found)


def build(shape: str, step: int) -> Driver:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(SHAPES[shape] | COMMON))
        limits = {"max_seq_len_override": 9216, "max_prefill_length": step, "page_size": 128}
        driver = Driver(build_engine(LaunchArgs(model_path=folder, dummy_weight=True, **limits)))
    driver.engine.warm_up()
    return driver


def kind(driver: Driver, batch: Batch) -> str:
    graph = driver.engine.graphs.find(batch) if driver.engine.graphs else None
    shape = "no graph" if graph is None else f"{graph.shape.tokens} tokens, {graph.shape.requests} requests"
    far = [batch.starts[batch.counts == 1], batch.starts[batch.counts > 1]]
    running, prompts = (max((past for past in PASTS if past <= longest.max(initial=0)), default=0) for longest in far)
    return f"{shape}; running behind {running}, " + (f"prompts behind {prompts}" if len(far[1]) else "no prompts")


def serve(driver: Driver, coming: deque[Arrival], first_uid: int) -> tuple[dict[str, Any], list[tuple[str, float]]]:
    """Figures, and each step's kind and milliseconds."""
    random = np.random.default_rng(first_uid)
    begun: dict[int, tuple[float, int]] = {}
    last: dict[int, float] = {}
    between, first, long_first, steps = [], [], [], []
    flying: deque[str] = deque()
    began = before = time.perf_counter()
    while coming or driver.scheduler.has_work:
        while coming and coming[0][0] <= time.perf_counter() - began:
            at, prompt, answer = coming.popleft()
            uid = first_uid + len(begun)
            begun[uid] = began + at, prompt
            ids = random.integers(0, 10000, prompt).astype(np.int32).tobytes()
            sampling = SamplingParams(answer, temperature=0.6, ignore_eos=True, seed=uid)
            driver.scheduler.add(Generate(uid, ids, sampling, DecodeParams()))
        batch = driver.step()
        results = driver.take()
        now = time.perf_counter()
        if batch is not None:
            flying.append(kind(driver, batch))
        if flying and (batch is None or len(flying) > 1):
            steps.append((flying.popleft(), (now - before) * 1000))
        before = now
        for uid in np.frombuffer(results.uids, np.int64).tolist():
            at, prompt = begun[uid]
            if uid in last:
                between.append(now - last[uid])
            else:
                (long_first if prompt == LONG else first).append(now - at)
            last[uid] = now
    p50, p99 = np.percentile(between, [50, 99]) * 1000
    figures = {
        "between_p50_ms": round(p50, 2),
        "between_p99_ms": round(p99, 2),
        "p99_over_p50": round(p99 / p50, 2),
        "first_p50_ms": round(float(np.median(first)) * 1000, 1),
        "long_first_p50_ms": round(float(np.median(long_first)) * 1000, 1) if long_first else None,
    }
    return figures, steps


def by_kind(steps: list[tuple[str, float]]) -> list[dict[str, Any]]:
    """The kinds of steps, those first that took most in all."""
    times = defaultdict(list)
    for name, took in steps:
        times[name].append(took)
    rows = []
    for name, found in sorted(times.items(), key=lambda pair: -sum(pair[1])):
        p50, p99 = np.percentile(found, [50, 99])
        rows.append({"step": name, "count": len(found), "p50_ms": round(p50, 2), "p99_ms": round(p99, 2)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="qwen3-0.6b", choices=sorted(SHAPES))
    parser.add_argument("--rate", type=float, default=22.5, help="requests per second, without the long ones")
    parser.add_argument("--step", type=int, default=128, help="tokens of a step")
    asked = parser.parse_args()
    driver, rows = build(asked.shape, asked.step), []
    serve(driver, deque((at / 4, *rest) for at, *rest in arrivals(asked.rate, long=False)[:60]), 0)  # warms up
    for i, long in enumerate((False, True), 1):
        figures, steps = serve(driver, deque(arrivals(asked.rate, long=long)), i * 10**6)
        rows.append({"long_prompts": long, "rate": asked.rate} | figures | {"steps": by_kind(steps)})
        print(json.dumps(rows[-1] | {"steps": len(steps)}))
        for row in rows[-1]["steps"][:25]:
            print("{count:6d} x {p50_ms:6.2f} ms, p99 {p99_ms:6.2f}   {step}".format(**row), flush=True)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    what = f"{asked.shape}, random weights, bfloat16, one process: tokens of running requests beside long prompts"
    write(Path(__file__), {"what": what, "gpu": gpu, "step_tokens": asked.step, "rows": rows})


if __name__ == "__main__":
    main()
