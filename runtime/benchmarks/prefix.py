"""What a shared prefix saves: the first token of a second request that begins like the first one, on one CPU thread.

    .venv/bin/python runtime/benchmarks/prefix.py [model folder]

Both requests begin with the same 1,000 tokens and end with 24 of their own; times are of one new token. Each round has
a new prefix, and radix and naive cache take turns in it. Prints a table, writes results/prefix.json.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from statistics import median

os.environ["OMP_NUM_THREADS"] = "1"

from minisgl.device import prepare_cpu

prepare_cpu()

import numpy as np
import torch
from report import MODEL, write

from minisgl.args import LaunchArgs
from minisgl.messages import SamplingParams
from minisgl.scheduler.driver import Driver, build_engine

SHARED, OWN, ROUNDS, TARGET = 1000, 24, 3, 5.0


def first_token(driver: Driver, prompt: list[int]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    [answer] = driver.generate([prompt], SamplingParams(1, temperature=0, ignore_eos=True))
    assert len(answer) == 1
    return (time.perf_counter() - began) * 1000


def measure(folder: Path, dtype: str) -> list[dict[str, object]]:
    """One row per cache."""

    def start(cache: str) -> Driver:
        args = {"model_path": str(folder), "dtype": dtype, "num_tokens": 16384, "cache_type": cache, "device": "cpu"}
        return Driver(build_engine(LaunchArgs.model_validate(args)))

    drivers = {cache: start(cache) for cache in ("radix", "naive")}
    times: dict[str, list[list[float]]] = {cache: [] for cache in drivers}
    random = np.random.default_rng(0)
    for _ in range(ROUNDS + 1):
        shared = random.integers(1000, 40000, SHARED).tolist()
        prompts = [shared + random.integers(1000, 40000, OWN).tolist() for _ in range(2)]
        for cache, driver in drivers.items():
            times[cache].append([first_token(driver, prompt) for prompt in prompts])
    rows = []
    for cache, measured in times.items():
        first, second = (median(column) for column in zip(*measured[1:], strict=True))  # the first round warms up
        rows.append(
            {
                "dtype": dtype,
                "cache": cache,
                "first_request_ms": round(first, 1),
                "second_request_ms": round(second, 1),
                "times_sooner": round(first / second, 2),
            }
        )
        print(f"{dtype:9} {cache}:  first {first:6.1f} ms  second {second:6.1f} ms  {first / second:5.2f} times sooner")
    return rows


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else MODEL
    torch.set_num_threads(1)
    what = f"first token of two requests that share {SHARED} of {SHARED + OWN} tokens, one thread, median of {ROUNDS}"
    rows = [row for dtype in ("float32", "bfloat16") for row in measure(folder, dtype)]
    write(Path(__file__), {"what": what, "model": folder.name, "target": TARGET, "rows": rows}, ("torch",))


if __name__ == "__main__":
    main()
