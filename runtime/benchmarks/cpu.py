"""SmolLM2 on one CPU thread: this engine beside transformers.generate, in one run on one machine.

    .venv/bin/python runtime/benchmarks/cpu.py [model folder]

Each cell is the best of `ROUNDS` rounds, and the two engines take turns, so that a busy machine hits both. Prompts
of 32 tokens, 128 new tokens, greedy, end tokens ignored; both are warm. The first token's time is a run of one new
token. Prints a table, writes results/cpu.json.
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

Run = Callable[[int, int], None]  # streams, new tokens of each


def ours(folder: Path, dtype: str) -> Run:
    """Without the prefix cache, which would skip the prompts from the second round on."""
    args = LaunchArgs(model_path=str(folder), device="cpu", dtype=dtype, num_tokens=4096, cache_type="naive")
    driver = Driver(build_engine(args))

    def run(streams: int, new: int) -> None:
        sampling = SamplingParams(new, temperature=0, ignore_eos=True)
        expect(sum(map(len, driver.generate(prompts(streams), sampling))), streams * new)

    return run


def theirs(folder: Path, dtype: str) -> Run:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()

    @torch.inference_mode()
    def run(streams: int, new: int) -> None:
        ids = torch.tensor(prompts(streams))
        options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        out = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        expect(out.shape[1] * streams - ids.numel(), streams * new)

    return run


def prompts(streams: int) -> list[list[int]]:
    return np.random.default_rng(0).integers(1000, 40000, (streams, PROMPT)).tolist()


def expect(tokens: int, wanted: int) -> None:
    assert tokens == wanted, f"{tokens} tokens instead of {wanted}"


def quickest(engines: dict[str, Run], streams: int, new: int) -> dict[str, float]:
    """Seconds of each engine's best round."""
    best = dict.fromkeys(engines, float("inf"))
    for round_number in range(ROUNDS + 1):
        for name, run in engines.items():
            began = time.perf_counter()
            run(streams, new)
            if round_number:  # the first warms up
                best[name] = min(best[name], time.perf_counter() - began)
    return best


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    rows = []
    for dtype in ("float32", "bfloat16"):
        engines = {"minisgl": ours(folder, dtype), "transformers": theirs(folder, dtype)}
        for streams in STREAMS:
            rate = {name: round(streams * NEW / t, 1) for name, t in quickest(engines, streams, NEW).items()}
            first = {name: round(t * 1000) for name, t in quickest(engines, streams, 1).items()}
            row = {"dtype": dtype, "streams": streams, **rate}
            row["ratio"] = round(rate["minisgl"] / rate["transformers"], 2)
            rows.append(row | {f"{name}_first_token_ms": ms for name, ms in first.items()})
            print(f"{dtype:9} {streams} streams:", end="")
            for name in engines:
                print(f"  {name} {rate[name]:6.1f} tok/s, first token {first[name]} ms", end="")
            print(f"  ratio {row['ratio']:.2f}", flush=True)
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
