"""Where a step's time goes on a GPU: the host's stages, the device's kernels, and the gaps between them.

    python3 runtime/benchmarks/gpu_profile.py [shape ...]        qwen3-0.6b (default), qwen3-14b, llama-8b

decode: 40 steps of 1, 8, 64 and 256 running requests (128 tokens each, greedy). prefill: one prompt of 128, 1,024 and
4,000 tokens, the median of five. First without a profiler, the host's clock around each stage; then again under torch's
profiler: time the device was busy per step, the kernels by name, and the longest idle time between two kernels of
neighbouring steps. Prints a table, writes results/gpu_profile.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import write
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from gpu import build
from minisgl.messages import DecodeParams, Generate, SamplingParams
from minisgl.scheduler.driver import Driver

STEPS, TIMES, MOST_KERNELS = 40, 5, 14
random = np.random.default_rng(0)


class Clock:
    """Seconds by stage, from methods that are wrapped while it is used."""

    def __init__(self, driver: Driver) -> None:
        self.seconds: Counter[str] = Counter()
        self._wrapped: list[tuple[Any, str]] = []
        self.wrap("plan", driver.scheduler, "plan")
        self.wrap("complete", driver.scheduler, "complete")
        self.wrap("launch", driver.engine, "launch")
        self.wrap("attention", driver.engine.attention, "begin")
        for graph in driver.engine.graphs._graphs.values() if driver.engine.graphs else []:
            self.wrap("attention", graph._attention, "begin")
            self.wrap("columns", graph, "_write")
            self.wrap("replay", graph, "replay")
        self.wrap("forward", driver.engine.model, "forward")

    def wrap(self, stage: str, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def timed(*args: Any) -> Any:
            began = time.perf_counter()
            result = original(*args)
            self.seconds[stage] += time.perf_counter() - began
            return result

        setattr(owner, name, timed)
        self._wrapped.append((owner, name))

    def stop(self) -> None:
        for owner, name in self._wrapped:
            delattr(owner, name)

    def milliseconds(self, times: int) -> dict[str, float]:
        return {stage: round(seconds / times * 1000, 3) for stage, seconds in self.seconds.items()}


def add(driver: Driver, count: int, prompt: int, new: int) -> None:
    for uid in range(count):
        ids = random.integers(0, 10_000, prompt).astype(np.int32).tobytes()
        sampling = SamplingParams(new, temperature=0, ignore_eos=True)
        driver.scheduler.add(Generate(uid, ids, sampling, DecodeParams()))


def finish(driver: Driver) -> None:
    while driver.scheduler.has_work:
        driver.step()
    driver.take()


def steps(driver: Driver, count: int) -> None:
    for _ in range(count):
        driver.step()
        driver.take()


def kernels(run: Callable[[], None], times: int) -> dict[str, Any]:
    """What the device did in `run`, per one of its `times` steps."""
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as recorded:
        run()
        torch.cuda.synchronize()
    found = [event for event in recorded.events() if event.device_type == DeviceType.CUDA]
    spans = sorted((event.time_range.start, event.time_range.end) for event in found)
    busy, longest, until = 0.0, 0.0, spans[0][0]
    for start, end in spans:
        longest = max(longest, start - until)
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    by_name: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for event in found:
        by_name[event.name] += event.time_range.end - event.time_range.start
        calls[event.name] += 1
    return {
        "device_ms": round((until - spans[0][0]) / 1000 / times, 4),
        "busy_ms": round(busy / 1000 / times, 4),
        "longest_idle_us": round(longest, 1),
        "kernels": [
            {"name": name[:90], "calls": round(calls[name] / times, 2), "us": round(micros / times, 1)}
            for name, micros in by_name.most_common(MOST_KERNELS)
        ],
    }


def decode(driver: Driver, batch: int) -> dict[str, Any]:
    add(driver, batch, 128, 4 * STEPS)
    steps(driver, 20)
    torch.cuda.synchronize()
    began = time.perf_counter()
    steps(driver, STEPS)
    torch.cuda.synchronize()
    wall = time.perf_counter() - began
    clock = Clock(driver)
    steps(driver, STEPS)
    torch.cuda.synchronize()
    clock.stop()
    device = kernels(lambda: steps(driver, STEPS), STEPS)
    finish(driver)
    host = clock.milliseconds(STEPS)
    return {"what": "decode", "requests": batch, "wall_ms": round(wall / STEPS * 1000, 4), "host_ms": host, **device}


def prefill(driver: Driver, prompt: int) -> dict[str, Any]:
    walls = []
    for _ in range(TIMES):
        add(driver, 1, prompt, 1)
        torch.cuda.synchronize()
        began = time.perf_counter()
        finish(driver)
        walls.append(time.perf_counter() - began)
    clock = Clock(driver)
    for _ in range(TIMES):
        add(driver, 1, prompt, 1)
        finish(driver)
    clock.stop()
    add(driver, 1, prompt, 1)
    device = kernels(lambda: finish(driver), 1)
    host = clock.milliseconds(TIMES)
    all_ms = [round(wall * 1000, 2) for wall in walls]
    wall_ms = round(statistics.median(walls) * 1000, 3)
    return {"what": "prefill", "tokens": prompt, "wall_ms": wall_ms, "all_ms": all_ms, "host_ms": host, **device}


def main() -> None:
    rows = []
    for shape in sys.argv[1:] or ["qwen3-0.6b"]:
        driver = build(shape)
        driver.engine.warm_up()
        for measure, sizes in ((prefill, (128, 1024, 4000)), (decode, (1, 8, 64, 256))):
            for size in sizes:
                row = {"shape": shape} | measure(driver, size)
                rows.append(row)
                print(json.dumps({key: value for key, value in row.items() if key != "kernels"}), flush=True)
                for kernel in row["kernels"]:
                    print(f"    {kernel['us']:9.1f} us {kernel['calls']:7.2f} x {kernel['name']}", flush=True)
        del driver
        torch.cuda.empty_cache()
    what = "one engine in one process, random weights, bfloat16: host stages and device kernels of a step"
    write(Path(__file__), {"what": what, "gpu": torch.cuda.get_device_name(), "rows": rows}, ("torch", "triton"))


if __name__ == "__main__":
    main()
