"""SmolLM2 on one CPU thread: this engine beside transformers.generate, in one run on one machine.

    .venv/bin/python runtime/benchmarks/cpu.py [model folder]

Each cell is the best of `ROUNDS` rounds, and the two engines take turns, so that a busy machine hits both. Prompts
of 32 tokens, 128 new tokens, greedy, end tokens ignored; both are warm. Prints a table, writes results/cpu.json.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from minisgl.device import prepare_cpu

prepare_cpu()

import numpy as np
import torch
import transformers

from minisgl import __version__
from minisgl.args import LaunchArgs
from minisgl.messages import SamplingParams
from minisgl.scheduler.driver import Driver, build_engine

DEFAULT = Path("~/.cache/minisgl/models/smollm2-135m-instruct").expanduser()
RESULT = Path(__file__).parent / "results" / "cpu.json"
PROMPT, NEW, STREAMS, ROUNDS = 32, 128, (1, 8), 3

Run = Callable[[int], None]


def ours(folder: Path, dtype: str) -> Run:
    """Without the prefix cache, which would skip the prompts from the second round on."""
    args = LaunchArgs(model_path=str(folder), device="cpu", dtype=dtype, num_tokens=4096, cache_type="naive")
    driver = Driver(build_engine(args))
    sampling = SamplingParams(NEW, temperature=0, ignore_eos=True)
    return lambda streams: expect(sum(map(len, driver.generate(prompts(streams), sampling))), streams)


def theirs(folder: Path, dtype: str) -> Run:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()

    @torch.inference_mode()
    def run(streams: int) -> None:
        ids = torch.tensor(prompts(streams))
        options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
        out = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        expect(out.shape[1] * streams - ids.numel(), streams)

    return run


def prompts(streams: int) -> list[list[int]]:
    return np.random.default_rng(0).integers(1000, 40000, (streams, PROMPT)).tolist()


def expect(tokens: int, streams: int) -> None:
    assert tokens == streams * NEW, f"{tokens} tokens instead of {streams * NEW}"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    rows = []
    for dtype in ("float32", "bfloat16"):
        engines = {"minisgl": ours(folder, dtype), "transformers": theirs(folder, dtype)}
        for streams in STREAMS:
            best = dict.fromkeys(engines, float("inf"))
            for round_number in range(ROUNDS + 1):
                for name, run in engines.items():
                    began = time.perf_counter()
                    run(streams)
                    if round_number:  # the first warms up
                        best[name] = min(best[name], time.perf_counter() - began)
            rate = {name: round(streams * NEW / seconds, 1) for name, seconds in best.items()}
            row = {"dtype": dtype, "streams": streams, **rate}
            row["ratio"] = round(rate["minisgl"] / rate["transformers"], 2)
            rows.append(row)
            print(f"{dtype:9} {streams} streams: minisgl {rate['minisgl']:7.1f} tok/s", end="  ")
            print(f"transformers {rate['transformers']:7.1f} tok/s  ratio {row['ratio']:.2f}", flush=True)
    result = {
        "what": f"tokens per second, one thread, {PROMPT} prompt tokens, {NEW} new tokens, best of {ROUNDS}",
        "model": folder.name,
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"minisgl": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
        "cpu": cpu(),
        "load": round(os.getloadavg()[0], 1),
        "rows": rows,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


def cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
