"""The engine on a GPU, without processes: the offline workload and the latency of one idle engine.

    python3 runtime/benchmarks/gpu.py [shape ...] [--fp8]        qwen3-0.6b (default), qwen3-14b, llama-8b

offline: 256 prompts, seed 0, prompt and answer lengths uniform in 100..1024, end tokens ignored, temperature 0.6,
random weights, nothing reused between rounds; tokens per second of answers, round 0 included in the list. latency: one
token's time at batch 1, 8 and 64 = (time for 257 tokens - time for 1) / 256 with prompts of 128; first token = time for
one token, a fresh prompt each, median of 5. Prints each figure once it is known, then a line a shape; writes
results/gpu.json (with --fp8: gpu_fp8.json).
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import randint, seed
from typing import Any

import numpy as np
import torch
from report import write

from minisgl.args import LaunchArgs
from minisgl.messages import DecodeParams, Generate, SamplingParams
from minisgl.scheduler.driver import Driver, build_engine

COMMON = {
    "head_dim": 128,
    "hidden_act": "silu",
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-6,
    "torch_dtype": "bfloat16",
    "eos_token_id": 1,
}
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "vocab_size": 151936,
    "rope_theta": 1e6,
    "max_position_embeddings": 40960,
}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-0.6b": QWEN3
    | {
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "intermediate_size": 3072,
        "tie_word_embeddings": True,
    },
    "qwen3-14b": QWEN3
    | {
        "hidden_size": 5120,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "intermediate_size": 17408,
        "tie_word_embeddings": False,
    },
    "llama-8b": {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 128256,
        "rope_theta": 5e5,
        "max_position_embeddings": 131072,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "intermediate_size": 14336,
        "tie_word_embeddings": False,
    },
    # To try a script without a GPU.
    "tiny": QWEN3
    | {
        "vocab_size": 100_000,
        "hidden_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "intermediate_size": 512,
        "tie_word_embeddings": False,
    },
}
NUM_PROMPTS, LONGEST, ROUNDS = 256, 1024, 3


def build(shape: str, **args: Any) -> Driver:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(SHAPES[shape] | COMMON))
        pages = {"page_size": 64 if args.get("kv_cache_dtype") == "fp8" else 128}
        launch = LaunchArgs(model_path=folder, dummy_weight=True, max_seq_len_override=4608, **pages, **args)
        return Driver(build_engine(launch))


def workload() -> tuple[list[list[int]], list[int]]:
    """Prompts as token ids, and answer lengths: the same numbers everybody quotes."""
    seed(0)
    prompts = [[randint(0, 10000) for _ in range(randint(100, LONGEST))] for _ in range(NUM_PROMPTS)]  # noqa: S311
    return prompts, [randint(100, LONGEST) for _ in range(NUM_PROMPTS)]  # noqa: S311


def shapes_and_cache() -> tuple[list[str], str]:
    """What the command line asks for."""
    shapes = [word for word in sys.argv[1:] if word != "--fp8"]
    return shapes or ["qwen3-0.6b"], "fp8" if "--fp8" in sys.argv else "auto"


def run(driver: Driver, prompts: list[list[int]], lengths: list[int], temperature: float) -> float:
    """Seconds until all have their answers."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    for uid, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        sampling = SamplingParams(length, temperature=temperature, ignore_eos=True, seed=uid)
        driver.scheduler.add(Generate(uid, np.array(prompt, np.int32).tobytes(), sampling, DecodeParams()))
    while driver.scheduler.has_work:
        driver.step()
        driver.take()
    return time.perf_counter() - began


def offline(driver: Driver) -> list[float]:
    prompts, lengths = workload()
    rates = []
    for round_number in range(ROUNDS):
        fresh = [[token + round_number for token in prompt] for prompt in prompts]
        rates.append(round(sum(lengths) / run(driver, fresh, lengths, 0.6), 1))
        say("offline, tokens/s", rates[-1])
    return rates


def say(what: str, figure: float) -> None:
    print(f"{what}: {figure}", file=sys.stderr, flush=True)


def latency(driver: Driver) -> dict[str, float]:
    random = np.random.default_rng(0)

    def seconds(batch: int, prompt: int, new: int) -> float:
        prompts = random.integers(0, 10000, (batch, prompt)).tolist()
        return run(driver, prompts, [new] * batch, 0.0)

    def median(measure: Callable[[], float], times: int) -> float:
        return statistics.median(measure() for _ in range(times))

    result = {}
    for batch in (1, 8, 64):
        many = median(lambda batch=batch: seconds(batch, 128, 257), 3)  # type: ignore[misc]
        one = median(lambda batch=batch: seconds(batch, 128, 1), 3)  # type: ignore[misc]
        result[f"ms_per_token_batch_{batch}"] = round((many - one) / 256 * 1000, 3)
        say(f"batch {batch}, ms/token", result[f"ms_per_token_batch_{batch}"])
    for prompt in (128, 1024, 4000):
        first = median(lambda prompt=prompt: seconds(1, prompt, 1), 5)  # type: ignore[misc]
        result[f"first_token_ms_prompt_{prompt}"] = round(first * 1000, 2)
        say(f"prompt of {prompt}, ms to the first token", result[f"first_token_ms_prompt_{prompt}"])
    return result


def main() -> None:
    rows = []
    shapes, cache = shapes_and_cache()
    for shape in shapes:
        began = time.perf_counter()
        driver = build(shape, kv_cache_dtype=cache)
        driver.engine.warm_up()
        row: dict[str, Any] = {"shape": shape, "start_seconds": round(time.perf_counter() - began, 1)}
        say(f"{shape}, seconds to start", row["start_seconds"])
        row["graphs"] = len(driver.engine.graphs.shapes) if driver.engine.graphs else 0
        row["cache"] = driver.engine.config.cache_dtype
        row["attention"] = driver.engine.config.attention_backend
        row["offline_tokens_per_second"] = offline(driver)
        row |= latency(driver)
        rows.append(row)
        print(json.dumps(row), flush=True)
        del driver
        torch.cuda.empty_cache()
    what = "one engine in one process, random weights, bfloat16"
    packages = "torch", "triton", "flashinfer-python", "numpy"
    result = {"what": what, "gpu": torch.cuda.get_device_name(), "rows": rows}
    write(Path(__file__), result, packages, "" if cache == "auto" else "_fp8")


if __name__ == "__main__":
    main()
