"""What a decode step is lost to: the time that reading weights and keys takes at least, and where the rest goes.

The parts are timed by wrapping the functions that make them up, each inside its whole:

    step [ scheduler, Python | compute [ sampling | forward [ matmuls | attention | norms, rotary | elementwise ] ] ]
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from engines import PROMPT, driver, prompts

from minisgl.attention.native import NativeAttention
from minisgl.attention.torch import TorchAttention
from minisgl.engine import engine as engine_module
from minisgl.engine.engine import Engine
from minisgl.kernels.native import Kernels
from minisgl.layers.norm import Norm
from minisgl.layers.rotary import Rotary
from minisgl.layers.weight import Matrix
from minisgl.messages import SamplingParams
from minisgl.models.decoder import Decoder

TOTALS: dict[str, list[tuple[Any, str]]] = {
    "matmuls": [(Matrix, "__call__")],
    "attention": [(backend, name) for backend in (TorchAttention, NativeAttention) for name in ("begin", "attend")],
    "norms_rotary": [
        *((Norm, "__call__"), (Rotary, "apply"), (Rotary, "at")),
        *((Kernels, "add_norm"), (Kernels, "rotate")),
    ],
    "forward": [(Decoder, "forward")],
    "sampling": [(engine_module, "sample")],
    "compute": [(Engine, "_compute")],
}


def read_bandwidth() -> float:
    """Bytes per second that one core reads from memory, at best: summing 256 MiB, more than any cache."""
    data = torch.ones(64 * 2**20)
    best = float("inf")
    for _ in range(8):
        began = time.perf_counter()
        data.sum()
        best = min(best, time.perf_counter() - began)
    return data.nbytes / best


def measure(folder: Path, dtype: str, streams: int, new: int, rounds: int) -> dict[str, Any]:
    """The table's row for one number of streams: milliseconds of the parts of a decode step, in the best round."""
    engine = driver(folder, dtype)
    spent = dict.fromkeys(TOTALS, 0.0)
    restore = [_time(owner, name, spent, part) for part, places in TOTALS.items() for owner, name in places]

    def run(tokens: int) -> dict[str, float]:
        spent.update(dict.fromkeys(spent, 0.0))
        began = time.perf_counter()
        engine.generate(prompts(streams), SamplingParams(tokens, temperature=0, ignore_eos=True))
        return {"step": time.perf_counter() - began, **spent}

    try:
        run(2)  # warms up
        decodes = []
        for _ in range(rounds):
            prefill, all_steps = run(1), run(new)
            decodes.append({part: (all_steps[part] - prefill[part]) / (new - 1) * 1000 for part in prefill})
    finally:
        for owner, name, original in restore:
            setattr(owner, name, original)
    best = min(decodes, key=lambda total: total["step"])
    model = engine.engine.config.model
    # An untied model's embedding is looked up, not read; a tied one is the head as well and is read once.
    weights = engine.engine.weight_bytes - model.vocab_size * model.hidden_size * torch.finfo(_type(dtype)).bits // 8
    cached = streams * (PROMPT + new // 2) * engine.engine.config.page_bytes / engine.engine.config.page_size
    attention = best["attention"]
    inside = best["matmuls"] + attention + best["norms_rotary"]
    return {
        "dtype": dtype,
        "streams": streams,
        "bytes_read": int(weights + cached),
        "step_ms": best["step"],
        "matmuls": best["matmuls"],
        "attention": attention,
        "norms_rotary": best["norms_rotary"],
        # `begin` belongs to attention but is called beside `forward`; it is a thousandth of a step.
        "elementwise": max(0.0, best["forward"] - inside),
        "sampling": best["sampling"],
        "scheduler_python": best["step"] - best["forward"] - best["sampling"],
    }


def _type(dtype: str) -> torch.dtype:
    found: torch.dtype = getattr(torch, dtype)
    return found


def _time(owner: Any, name: str, spent: dict[str, float], part: str) -> tuple[Any, str, Any]:
    original = getattr(owner, name)

    def timed(*args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        result = original(*args, **options)
        spent[part] += time.perf_counter() - began
        return result

    setattr(owner, name, timed)
    return owner, name, original
