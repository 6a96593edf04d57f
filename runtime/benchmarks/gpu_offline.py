"""Where the offline workload's time goes on a GPU: steps by their size, and what the device does in some of them.

    python3 runtime/benchmarks/gpu_offline.py [shape ...] [--fp8]        qwen3-0.6b (default), qwen3-14b, llama-8b

One round without a profiler: seconds spent in steps with prompts, and in decode steps by the requests in them. Then a
round in which windows of 20 steps are recorded: per step the milliseconds of each kind of kernel, and the gap between
two steps: from the end of a step's last kernel to the begin of the next one's first, whatever is copied between them.
Prints both, writes results/gpu_offline.json; with the KV cache in fp8 results/gpu_offline_fp8.json.
"""

from __future__ import annotations

import json
import re
import statistics
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import write
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from gpu import build, shapes_and_cache, workload
from minisgl.messages import DecodeParams, Generate, SamplingParams
from minisgl.scheduler.driver import Driver

WINDOWS = (4, 30, 120, 300, 500, 700, 850, 950)  # first steps of what is recorded
WINDOW_STEPS = 20
SIZES = (16, 32, 64, 128, 192, 256)
KINDS = (
    ("attention", r"flashinfer::.*(Prefill|Decode)|kernel_mha|flash"),
    ("merge", r"MergeStates"),
    ("product", r"nvjet|cublas|gemm|cutlass|_gemv|_skinny|splitK"),
    ("norm, heads, gate", r"_add_norm|_gate|_place_heads|layer_norm"),
    ("draw", r"_best_of"),
    ("copy", r"Memcpy|Memset"),
)
LAST_KERNEL = "_best_of_row"


def add_all(driver: Driver, first: int) -> None:
    """Queue the workload; `first` tells its tokens from other rounds'."""
    for uid, (prompt, length) in enumerate(zip(*workload(), strict=True)):
        ids = np.array(prompt, np.int32) + first
        sampling = SamplingParams(length, temperature=0.6, ignore_eos=True, seed=uid)
        driver.scheduler.add(Generate(first * 1000 + uid, ids.tobytes(), sampling, DecodeParams()))


def kind_of(name: str) -> str:
    return next((kind for kind, pattern in KINDS if re.search(pattern, name)), "other")


def by_size(driver: Driver) -> tuple[float, dict[str, Any]]:
    """Seconds in all, and by what was in a step. A step's time is until the next one is launched."""
    seconds: defaultdict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    torch.cuda.synchronize()
    began = last = time.perf_counter()
    while driver.scheduler.has_work:
        batch = driver.step()
        driver.take()
        now = time.perf_counter()
        label = "end"
        if batch is not None:
            requests = len(batch.counts)
            is_decode = requests == len(batch.tokens)
            label = f"decode of at most {next(s for s in SIZES if requests <= s)}" if is_decode else "with prompts"
        seconds[label] += now - last
        counts[label] += 1
        last = now
    parts = {label: {"steps": counts[label], "seconds": round(seconds[label], 3)} for label in sorted(seconds)}
    return last - began, parts


def window(driver: Driver) -> dict[str, Any]:
    """What the device did in some steps, per step."""
    requests, tokens, cached = [], [], []
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as recorded:
        for _ in range(WINDOW_STEPS):
            batch = driver.step()
            driver.take()
            if batch is not None:
                requests.append(len(batch.counts))
                tokens.append(len(batch.tokens))
                cached.append(int(batch.starts.sum()))
        torch.cuda.synchronize()
    events = [event for event in recorded.events() if event.device_type == DeviceType.CUDA]
    spans = sorted((event.time_range.start, event.time_range.end, event.name) for event in events)
    busy: Counter[str] = Counter()
    gaps, ended = [], None
    for start, end, name in spans:
        kind = kind_of(name)
        busy[kind] += end - start
        if ended is not None and kind != "copy":
            gaps.append(start - ended)
            ended = None
        if LAST_KERNEL in name:
            ended = end
    steps = len(requests)
    return {
        "requests": round(statistics.mean(requests), 1),
        "tokens": round(statistics.mean(tokens), 1),
        "cached_tokens": round(statistics.mean(cached)),
        "device_ms": round((spans[-1][1] - spans[0][0]) / 1000 / steps, 3),
        "busy_ms": {kind: round(micros / 1000 / steps, 3) for kind, micros in busy.most_common()},
        "gap_us": {
            "p50": round(statistics.median(gaps), 1),
            "p90": round(float(np.percentile(gaps, 90)), 1),
            "max": round(max(gaps), 1),
        },
    }


def windows(driver: Driver) -> list[dict[str, Any]]:
    found, step = [], 0
    while driver.scheduler.has_work:
        if step in WINDOWS:
            found.append({"step": step} | window(driver))
            step += WINDOW_STEPS
        else:
            driver.step()
            driver.take()
            step += 1
    return found


def main() -> None:
    shapes, cache = shapes_and_cache()
    rows = []
    for shape in shapes:
        driver = build(shape, kv_cache_dtype=cache)
        driver.engine.warm_up()
        add_all(driver, 0)
        total, parts = by_size(driver)
        add_all(driver, 1)
        rate = round(sum(workload()[1]) / total, 1)
        row = {"shape": shape, "cache": driver.engine.config.cache_dtype, "tokens_per_second": rate}
        row |= {"parts": parts, "windows": windows(driver)}
        rows.append(row)
        print(json.dumps({key: value for key, value in row.items() if key != "windows"}), flush=True)
        for found in row["windows"]:
            print("   ", json.dumps(found), flush=True)
        del driver
        torch.cuda.empty_cache()
    what = "the offline workload, random weights, bfloat16: seconds by step, and the device's work in a step"
    result = {"what": what, "gpu": torch.cuda.get_device_name(), "rows": rows}
    packages = "torch", "triton", "flashinfer-python"
    write(Path(__file__), result, packages, "" if cache == "auto" else "_fp8")


if __name__ == "__main__":
    main()
