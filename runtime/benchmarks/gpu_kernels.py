"""Each fused kernel beside its twin in plain torch, on a GPU: microseconds, replayed in a graph.

    python3 runtime/benchmarks/gpu_kernels.py [part of a name ...]        all kernels by default

A graph holds 20 calls, each with weights or inputs of its own where one call's would stay in the L2 cache between
steps; the median of 20 replays is divided by the calls. `floor_us` is the docstring's bytes at the rate of a large copy
on this card, or a product's operations at the rate of a large one, whichever takes longer; both are measured first.
Large products are there where `kernels.tiled` takes them. Prints a table, writes results/gpu_kernels.json.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from report import write
from torch.nn import functional

from minisgl.kernels import tiled
from minisgl.kernels.draw import draw
from minisgl.kernels.gate import gate, gate_twin
from minisgl.kernels.gemv import gemv_twin
from minisgl.kernels.heads import Shape, place_heads, place_heads_twin
from minisgl.kernels.norm import add_norm, add_norm_twin
from minisgl.kernels.skinny import few_rows

CALLS, REPLAYS = 20, 20
COLD_BYTES = 256 * 2**20  # more than any L2 cache: inputs rotate through as much
VOCAB = 151_936
RANDOM: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16}

Call = Callable[[int], Any]  # of the number of a call, which picks its inputs


class Case(NamedTuple):
    """One row: the kernel and its twin, and the bytes that one call must move."""

    kernel: str
    what: str
    ours: Call
    twin: Call
    num_bytes: int
    operations: int = 0


def microseconds(call: Call) -> float:
    """Of one call."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        for i in range(3):
            call(i)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = [call(i) for i in range(CALLS)]
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    times = []
    for _ in range(REPLAYS + 3):
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1000 / CALLS)
    del kept
    return statistics.median(times[3:])


def copy_rate() -> float:
    """Bytes per second read and written by a copy of 1 GiB."""
    source = torch.zeros(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / microseconds(lambda _: target.copy_(source)) * 1e6


def product_rate() -> float:
    """Operations per second of a product of 8,192 cubed."""
    size = 8192
    x, y = torch.randn(2, size, size, **RANDOM)
    return 2 * size**3 / microseconds(lambda _: x @ y) * 1e6


def copies(num_bytes: int) -> int:
    """How many sets of inputs a row rotates through."""
    return max(1, min(CALLS, COLD_BYTES // num_bytes))


def repeat(function: Callable[..., Any], *given: Any) -> Call:
    """The same inputs in every call."""
    return lambda _: function(*given)


def softmax_draw(logits: torch.Tensor, temperature: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """What the engine did before: a distribution in float32, and where a number lies in its running sum."""
    best = logits.max(dim=-1, keepdim=True).values
    cumulative = ((logits.float() - best) / temperature.unsqueeze(1)).softmax(-1).cumsum(-1, dtype=torch.float64)
    return torch.searchsorted(cumulative, points)


def draws() -> Iterator[Case]:
    for rows in (1, 8, 64, 256):
        logits = torch.randn(rows, VOCAB, **RANDOM)
        seeds = torch.arange(rows, device="cuda")
        points = torch.rand(rows, 1, device="cuda", dtype=torch.float64)
        for heat in (0.0, 0.6):
            temperature = torch.full((rows,), heat, device="cuda")
            before = repeat(softmax_draw, logits, temperature, points) if heat else repeat(torch.max, logits, -1)
            ours = repeat(draw, logits, temperature, seeds, seeds, torch.zeros_like(seeds), seeds)
            yield Case("draw", f"{rows} rows, temperature {heat}", ours, before, logits.nbytes)


def norms() -> Iterator[Case]:
    for tokens, size in [(1, 1024), (64, 1024), (256, 1024), (8192, 1024), (1, 5120), (256, 5120), (8192, 5120)]:
        x, delta = torch.randn(2, tokens, size, **RANDOM)
        given = x, delta, torch.ones(size, **RANDOM), 1e-6
        yield Case(
            "add_norm", f"{tokens} x {size}", repeat(add_norm, *given), repeat(add_norm_twin, *given), 4 * x.nbytes
        )


def gates() -> Iterator[Case]:
    for tokens, width in [(1, 3072), (64, 3072), (256, 3072), (8192, 3072), (1, 17408), (256, 17408)]:
        both = torch.randn(tokens, 2 * width, **RANDOM)
        yield Case("gate", f"{tokens} x {width}", repeat(gate, both), repeat(gate_twin, both), both.nbytes * 3 // 2)


def heads() -> Iterator[Case]:
    for tokens in (1, 64, 256, 8192):
        for num, kv_heads in ((16, 8), (40, 8)):
            dim = 128
            qkv = torch.randn(tokens, (num + 2 * kv_heads) * dim, **RANDOM)
            q_norm, k_norm = torch.ones(2, dim, **RANDOM)
            cos, sin = torch.rand(2, 4096, dim, **RANDOM)
            keys, values = torch.zeros(2, 128, kv_heads, 128, dim, **RANDOM).transpose(2, 3)
            index = torch.arange(tokens, device="cuda")
            shape = Shape(num, kv_heads, dim, (q_norm, k_norm, 1e-6))
            given = qkv, shape, (cos, sin), index % 4096, index, (keys, values)
            yield Case(
                "place_heads",
                f"{tokens} x ({num} + 2 * {kv_heads}) x {dim}",
                repeat(place_heads, *given),
                repeat(place_heads_twin, *given),
                2 * qkv.nbytes,
            )


def rotate(function: Callable[..., Any], x: torch.Tensor, weights: torch.Tensor) -> Call:
    """Weights of their own for each call, so that none is still in the L2 cache."""
    return lambda i: function(x, weights[i % len(weights)])


def products() -> Iterator[Case]:
    shapes = {
        "0.6B": [(4096, 1024), (1024, 2048), (6144, 1024), (1024, 3072), (VOCAB, 1024)],
        "14B": [(7168, 5120), (5120, 5120), (34_816, 5120), (5120, 17_408), (VOCAB, 5120)],
    }
    for model, sizes in shapes.items():
        for outs, ins in sizes:
            count = copies(outs * ins * 2)
            weights = torch.randn(count, outs, ins, **RANDOM)
            for rows in (1, 2, 8, 16):
                x = torch.randn(rows, ins, **RANDOM)
                ours, twin = rotate(few_rows, x, weights), rotate(gemv_twin, x, weights)
                yield Case(
                    "gemv" if rows == 1 else "skinny",
                    f"{model} {outs} x {ins}, {rows} rows",
                    ours,
                    twin,
                    outs * ins * 2,
                )


def tiles() -> Iterator[Case]:
    """Each at the rows of some captured steps."""
    models = {"0.6B": (1024, 4096, 2048, 3072), "8B": (4096, 6144, 4096, 14_336), "14B": (5120, 7168, 5120, 17_408)}
    for model, (hidden, qkv, attended, width) in models.items():
        sizes = {"qkv": (qkv, hidden), "o": (hidden, attended), "gate_up": (2 * width, hidden), "down": (hidden, width)}
        for what, (outs, ins) in sizes.items():
            weights = torch.randn(copies(outs * ins * 2), outs, ins, **RANDOM) / 64
            for rows in (224, 256, 384, 512, 1024, 2048, 4096):
                gated = what == "gate_up"
                if (multiply := tiled.way(rows, weights[0], gated=gated)) is None:
                    continue
                x, y = torch.randn(rows, ins, **RANDOM), torch.empty(rows, width if gated else outs, **RANDOM)
                ours = rotate(lambda x, weight, y=y, multiply=multiply: multiply(x, weight, y), x, weights)
                twin = rotate(
                    (lambda x, weight: gate(functional.linear(x, weight))) if gated else functional.linear, x, weights
                )
                name = f"{model} {what} {outs} x {ins}, {rows} rows"
                moved = (outs * ins + x.numel() + y.numel()) * 2
                yield Case("gated" if gated else "tiled", name, ours, twin, moved, 2 * rows * outs * ins)


def main() -> None:
    wanted = sys.argv[1:]
    rate, pace = copy_rate(), product_rate()
    rows = []
    print(f"{torch.cuda.get_device_name()}: copies at {rate / 1e12:.2f} TB/s, products at {pace / 1e12:.0f} TFLOP/s")
    for cases in (draws, norms, gates, heads, products, tiles):
        for case in cases():
            if wanted and not any(part in case.kernel for part in wanted):
                continue
            row = {
                "kernel": case.kernel,
                "what": case.what,
                "us": round(microseconds(case.ours), 2),
                "torch_us": round(microseconds(case.twin), 2),
                "floor_us": round(max(case.num_bytes / rate, case.operations / pace) * 1e6, 2),
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
    result = {"what": "fused kernels beside plain torch, bfloat16, replayed in a graph", "copy_bytes_per_second": rate}
    result |= {"product_operations_per_second": pace, "gpu": torch.cuda.get_device_name(), "rows": rows}
    write(Path(__file__), result, ("torch", "triton", "quack-kernels"))


if __name__ == "__main__":
    main()
