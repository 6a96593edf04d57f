"""The server on a GPU, through HTTP, as its clients see it: the whole tree of processes, streaming, Poisson arrivals.

    python3 runtime/benchmarks/gpu_serve.py [shape] [--fp8]        qwen3-0.6b (default), qwen3-14b, llama-8b

saturation: 512 requests of 100 to 1,024 tokens in and out, arriving faster than they are answered; output tokens per
second from the first arrival to the last answer. half: arrivals at half the requests that were answered per second,
alone, and again with a prompt of 8,000 tokens every second; steps of at most 128 tokens. Random weights, and a
tokenizer of as many made-up words as the model knows. Prints a table, writes results/gpu_serve.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from report import write
from serve import NAME, free_port, server
from tokenizers.pre_tokenizers import ByteLevel

from gpu import COMMON, SHAPES, shapes_and_cache

LENGTHS = ("--input-len=100-1024", "--output-len=100-1024")
LONG = ("--rate=1", "--num-prompts=10", "--input-len=8000", "--output-len=8")
REQUESTS, FASTER, HALF_SECONDS, STEP_TOKENS = 512, 200, 12, 128


def save(shape: str, folder: Path) -> None:
    """Configuration and tokenizer: bytes, then made-up words."""
    config = SHAPES[shape] | COMMON
    (folder / "config.json").write_text(json.dumps(config))
    letters = sorted(ByteLevel.alphabet())  # one for each byte
    words = [*letters, *(f"w{i}x" for i in range(len(letters), config["vocab_size"]))]
    vocab = {word: i for i, word in enumerate(words)}
    model = {"type": "BPE", "vocab": vocab, "merges": []}
    decoder = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    content = {"version": "1.0", "added_tokens": [], "model": model, "decoder": decoder, "pre_tokenizer": decoder}
    (folder / "tokenizer.json").write_text(json.dumps(content))


@contextmanager
def ours(folder: Path, cache: str, step_tokens: int) -> Iterator[str]:
    port = free_port()
    what = [
        f"--model-path={folder}",
        "--dummy-weight",
        f"--page-size={64 if cache == 'fp8' else 128}",
        f"--kv-cache-dtype={cache}",
    ]
    limits = ["--max-seq-len-override=9216", f"--max-prefill-length={step_tokens}", "--silent-output"]
    command = [sys.executable, "-m", "minisgl", *what, *limits, f"--port={port}", f"--served-model-name={NAME}"]
    with server(command, port, f"gpu-{step_tokens}", {"PYTHONPATH": os.pathsep.join(sys.path)}) as url:
        yield url


def client(url: str, seed: int, *options: str) -> tuple[subprocess.Popen[bytes], Path]:
    with tempfile.NamedTemporaryFile(delete=False) as result:
        path = Path(result.name)
    command = [sys.executable, "-m", "minisgl.bench", "serve", f"--url={url}", f"--seed={seed}", f"--json={path}"]
    return subprocess.Popen([*command, "--api=completions", *options], stdout=subprocess.DEVNULL), path  # noqa: S603


def figures(started: tuple[subprocess.Popen[bytes], Path]) -> dict[str, Any]:
    process, path = started
    if process.wait(300):
        raise SystemExit("the client failed, or some requests did")
    content = json.loads(path.read_text())
    path.unlink()
    rows = {row["ms"]: row for row in content["rows"]}
    between = rows["between events"]
    return {
        "requests_per_s": content["totals"]["requests_per_s"],
        "output_tokens_per_s": content["totals"]["output_tokens_per_s"],
        "first_p50_ms": rows["first token"]["p50"],
        "first_p99_ms": rows["first token"]["p99"],
        "between_p50_ms": between["p50"],
        "between_p99_ms": between["p99"],
        "p99_over_p50": round(between["p99"] / between["p50"], 2),
        "client_share_of_a_core": content["totals"]["client_share_of_a_core"],
    }


def main() -> None:
    shapes, cache = shapes_and_cache()
    rows = []

    def show(what: str, row: dict[str, Any]) -> None:
        rows.append({"load": what} | row)
        print(json.dumps(rows[-1]), flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(shapes[0], folder)
        with ours(folder, cache, 8192) as url:
            figures(client(url, 1, f"--rate={FASTER}", "--num-prompts=32", *LENGTHS))  # warms up
            full = figures(client(url, 2, f"--rate={FASTER}", f"--num-prompts={REQUESTS}", *LENGTHS))
            show("saturation", full)
        half = full["requests_per_s"] / 2
        options = f"--rate={half:.2f}", f"--num-prompts={int(half * HALF_SECONDS)}", *LENGTHS
        with ours(folder, cache, STEP_TOKENS) as url:
            show("half", figures(client(url, 3, *options)))
            long = client(url, 5, *LONG)
            show("half, with prompts of 8,000", figures(client(url, 4, *options)))
            show("the prompts of 8,000", figures(long))
    what = f"{shapes[0]} served over HTTP, random weights, bfloat16, cache {cache}: one server, clients beside it"
    packages = "torch", "triton", "flashinfer-python", "uvloop"
    write(Path(__file__), {"what": what, "gpu": torch.cuda.get_device_name(), "rows": rows}, packages)


if __name__ == "__main__":
    main()
