"""What the plan says of a GPU's memory beside what the engine finds there, at a pod's default arguments.

    python3 runtime/benchmarks/gpu_memory.py [--gpu h200] [shape ...]      all three shapes unless told otherwise

For each shape: what `python -m minisgl plan --gpu NAME` says, which never sees the card; what the engine plans at its
start, which knows the free bytes; and what came true: weights, bytes a token, activations (the largest step, tried),
graphs, the cache's tokens, and the bytes that nobody has after the warm-up (--memory-ratio leaves a tenth). Differences
are (plan - real) / real. Dummy weights. Prints a row a shape, writes results/gpu_memory.json.

`share_of_cache_if_exact` says what the plan would be off by if every other figure were right: its error in bytes
over the cache's. With --dry-run only the plan, and what each part of it is of the cache: no GPU needed.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from report import write

from gpu import COMMON, SHAPES
from minisgl.args import LaunchArgs
from minisgl.engine.engine import Engine
from minisgl.plan.device import gpu_bytes
from minisgl.plan.model import ModelConfig
from minisgl.plan.outlook import Outlook, predict
from minisgl.scheduler.driver import build_engine

PARTS = ("weights", "activations", "graphs", "other")


def launch_args(folder: Path) -> LaunchArgs:
    """Those of a pod whose spec says nothing."""
    return LaunchArgs(model_path=str(folder), dummy_weight=True)


def off(planned: float | None, real: float | None) -> float | None:
    return None if planned is None or not real else round((planned - real) / real, 4)


def as_row(outlook: Outlook) -> dict[str, Any]:
    """The plan for a card by name."""
    assert outlook.free is not None
    assert outlook.tokens is not None
    cache = outlook.tokens * outlook.config.token_bytes
    row = {"free": outlook.free, **outlook.need._asdict(), "token_bytes": outlook.config.token_bytes}
    return row | {
        "cache_tokens": outlook.tokens,
        "parts_of_the_cache": {name: round(getattr(outlook.need, name) / cache, 4) for name in PARTS},
    }


def found(engine: Engine, outlook: Outlook) -> dict[str, Any]:
    """The engine's figures beside both predictions."""
    memory = engine.facts().memory
    assert memory is not None
    assert outlook.tokens is not None
    figures = {
        "weights": (outlook.need.weights, memory.weight_bytes),
        "token_bytes": (outlook.config.token_bytes, memory.kv_bytes_per_token),
        "activations": (outlook.need.activations, memory.activation_bytes),
        "graphs": (outlook.need.graphs, memory.graph_bytes),
        "cache_tokens": (outlook.tokens, memory.cache_tokens),
    }
    row: dict[str, Any] = {
        name: {
            "by_name": by_name,
            "planned": figure.planned,
            "real": figure.real,
            "off_by_name": off(by_name, figure.real),
            "off": off(figure.planned, figure.real),
        }
        for name, (by_name, figure) in figures.items()
    }
    row["free"] = {
        "by_name": outlook.free,
        "real": memory.free_bytes,
        "off_by_name": off(outlook.free, memory.free_bytes),
    }
    cache = engine.pool.num_bytes
    for name in ("activations", "graphs"):
        figure = figures[name][1]
        if figure.real is not None:
            row[name]["share_of_cache_if_exact"] = round((figure.real - figure.planned) / cache, 4)
    row["agrees_within_3_percent"] = abs(off(outlook.tokens, memory.cache_tokens.real) or 0.0) <= 0.03
    return row


def measure(shape: str, gpu: str, *, dry: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(SHAPES[shape] | COMMON))
        args = launch_args(folder)
        memory = gpu_bytes(gpu)
        outlook = predict(args, ModelConfig.read(folder), "cuda", memory)
        row: dict[str, Any] = {"shape": shape, "plan": as_row(outlook)}
        if dry:
            return row
        began = time.perf_counter()
        engine = build_engine(args)
        engine.warm_up()
        torch.cuda.synchronize()
        row["start_seconds"] = round(time.perf_counter() - began, 1)
        row["attention"] = engine.config.attention_backend
        free, total = torch.cuda.mem_get_info()
        row["card"] = {"named": memory, "torch_total": total}
        row |= found(engine, outlook)
        kept_free = int(engine.free_bytes * (1 - args.memory_ratio))
        row["left"] = {"free_after_warm_up": free, "meant_to_be": kept_free, "cached_by_torch": _cached()}
        del engine
    gc.collect()
    torch.cuda.empty_cache()
    return row


def _cached() -> int:
    return torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("shapes", nargs="*", default=["qwen3-0.6b", "qwen3-14b", "llama-8b"])
    parser.add_argument("--gpu", default="h200")
    parser.add_argument("--dry-run", action="store_true")
    asked = parser.parse_args()
    rows = []
    for shape in asked.shapes:
        rows.append(measure(shape, asked.gpu, dry=asked.dry_run))
        print(json.dumps(rows[-1]), flush=True)
    if asked.dry_run:
        return
    what = f"memory as planned for {asked.gpu} by name, as planned with its free bytes, and as found; default arguments"
    packages = "torch", "triton", "flashinfer-python", "flash-attn-4"
    write(Path(__file__), {"what": what, "gpu": torch.cuda.get_device_name(), "rows": rows}, packages)


if __name__ == "__main__":
    main()
