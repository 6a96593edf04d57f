"""A checkpoint of real shapes on a GPU: how fast it loads, and whether transformers computes the same from it.

    python3 runtime/benchmarks/gpu_checkpoint.py [shape ...]        qwen3-0.6b (default), qwen3-14b, llama-8b

Writes random weights to a temporary folder, empties the page cache (as root; otherwise the figures are the cache's),
reads the files once with 8 threads for the disk's own speed, empties it again and loads them. Then the logits behind 32
random prompts and the greedy answers of 16 tokens to 8 of them, ours and those of transformers in bfloat16 on the same
GPU; and ours with the KV cache in fp8. Prints a table, writes results/gpu_checkpoint.json.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import write
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from gpu import COMMON, SHAPES
from minisgl.args import LaunchArgs
from minisgl.distributed.group import Group
from minisgl.engine.batch import Batch
from minisgl.messages import SamplingParams
from minisgl.models import registry, weights
from minisgl.plan.model import ModelConfig
from minisgl.scheduler.driver import Driver, build_engine

FILE_BYTES = 4 * 2**30
READERS, PIECE_BYTES = 8, 16 * 2**20
PAGE = 64
PROMPTS = [np.random.default_rng(i).integers(0, 100_000, 5 + 13 * i).tolist() for i in range(32)]
ANSWERED, ANSWER = 8, 16


def save(shape: str, folder: Path) -> int:
    """Random weights, in files of a few gigabytes; returns their bytes."""
    kind = {"model_type": shape.partition("-")[0]}  # what transformers looks at
    (folder / "config.json").write_text(json.dumps(SHAPES[shape] | COMMON | kind))
    config = ModelConfig.read(folder)
    model = registry.find(config.architecture)(config, 64, Group(), torch.bfloat16, "cuda")
    slots = list(model.slots())
    total = weights.fill_randomly(slots)
    where: dict[str, str] = {}
    part: dict[str, torch.Tensor] = {}

    def flush() -> None:
        name = f"model-{len(set(where.values()))}.safetensors"
        save_file(part, folder / name)
        where.update(dict.fromkeys(part, name))
        part.clear()

    for slot in slots:
        # A norm's weights are near one: with random signs, nothing would be left of an activation after some layers.
        tensor = slot.target if slot.target.dim() > 1 else slot.target * 0.1 + 1
        part[slot.name] = tensor.cpu().contiguous()
        if sum(tensor.nbytes for tensor in part.values()) >= FILE_BYTES:
            flush()
    if part:
        flush()
    (folder / weights.INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": where}))
    return total


def forget_files() -> bool:
    """Empty the page cache; False: not allowed."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def disk_seconds(folder: Path) -> float:
    """Reading all files with plain reads."""

    def read(piece: tuple[Path, int]) -> None:
        with piece[0].open("rb", buffering=0) as file:
            file.seek(piece[1])
            file.readinto(bytearray(PIECE_BYTES))

    files = folder.glob("*.safetensors")
    pieces = [(file, at) for file in files for at in range(0, file.stat().st_size, PIECE_BYTES)]
    began = time.perf_counter()
    with ThreadPoolExecutor(READERS) as readers:
        list(readers.map(read, pieces))
    return time.perf_counter() - began


def build(folder: Path, cache: str) -> tuple[Driver, float]:
    """An engine, and the seconds that its weights took."""
    moments: dict[str, float] = {}

    def phase(name: str, done: int | None, total: int | None) -> None:
        moments.setdefault(name, time.perf_counter())

    args = LaunchArgs(
        model_path=str(folder), page_size=PAGE, num_tokens=65_536, max_seq_len_override=4096, kv_cache_dtype=cache
    )
    driver = Driver(build_engine(args, phase=phase))
    return driver, moments["kv-cache"] - moments["weights"]


def logits(driver: Driver, prompts: list[list[int]]) -> torch.Tensor:
    """Behind each prompt, in steps of a few."""
    found = []
    for first in range(0, len(prompts), 8):
        part = prompts[first : first + 8]
        counts = np.array([len(prompt) for prompt in part], np.int32)
        used = -(-counts // PAGE)
        pages = np.zeros((len(part), int(used.max())), np.int32)
        begin = np.cumsum(used) - used
        for row, count in enumerate(used):
            pages[row, :count] = begin[row] + np.arange(count)
        batch = Batch(
            rows=np.arange(len(part), dtype=np.int32),
            tokens=np.concatenate(part).astype(np.int32),
            starts=np.zeros(len(part), np.int32),
            counts=counts,
            pages=pages,
            sampled=np.arange(len(part), dtype=np.int32),
            scrub=np.empty(0, np.int32),
        )
        scores = driver.engine.logits(batch)
        assert scores is not None
        found.append(scores.float().clone())
    return torch.cat(found)


def agreement(ours: list[list[int]], theirs: list[list[int]]) -> dict[str, float]:
    """Of answers: tokens that are equal before the first that differs."""
    same = [
        next((i for i, pair in enumerate(zip(a, b, strict=True)) if pair[0] != pair[1]), len(a))
        for a, b in zip(ours, theirs, strict=True)
    ]
    return {
        "equal_answers": sum(n == ANSWER for n in same),
        "equal_tokens_at_the_begin": round(float(np.mean(same)), 1),
    }


def compare(ours: torch.Tensor, theirs: torch.Tensor) -> dict[str, float]:
    return {
        "relative_error": round(float((ours - theirs).norm() / theirs.norm()), 5),
        "equal_best_tokens": round(float((ours.argmax(1) == theirs.argmax(1)).float().mean()), 3),
    }


@torch.inference_mode()
def measure(shape: str, folder: Path) -> dict[str, Any]:
    began = time.perf_counter()
    size = save(shape, folder)
    row: dict[str, Any] = {"shape": shape, "gigabytes": round(size / 1e9, 2)}
    row["write_seconds"] = round(time.perf_counter() - began, 1)
    torch.cuda.empty_cache()
    row["from_disk"] = forget_files()
    row["disk_gb_per_s"] = round(size / 1e9 / disk_seconds(folder), 2)
    forget_files()
    driver, seconds = build(folder, "auto")
    row["load_gb_per_s"] = round(size / 1e9 / seconds, 2)
    ours = logits(driver, PROMPTS)
    greedy = SamplingParams(ANSWER, temperature=0, ignore_eos=True)
    answers = driver.generate(PROMPTS[:ANSWERED], greedy)
    del driver
    torch.cuda.empty_cache()
    driver, seconds = build(folder, "fp8")
    row["load_again_gb_per_s"] = round(size / 1e9 / seconds, 2)
    narrow = logits(driver, PROMPTS)
    narrow_answers = driver.generate(PROMPTS[:ANSWERED], greedy)
    del driver
    torch.cuda.empty_cache()

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to("cuda").eval()
    theirs = torch.cat([model(torch.tensor([p], device="cuda")).logits[:, -1].float() for p in PROMPTS])
    told = []
    for prompt in PROMPTS[:ANSWERED]:
        ids = torch.tensor([prompt], device="cuda")
        options = {"max_new_tokens": ANSWER, "min_new_tokens": ANSWER, "do_sample": False, "pad_token_id": 0}
        told.append(model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, len(prompt) :].tolist())
    row["against_transformers"] = compare(ours, theirs) | agreement(answers, told)
    row["fp8_against_bf16"] = compare(narrow, ours) | agreement(narrow_answers, answers)
    return row


def main() -> None:
    rows = []
    for shape in sys.argv[1:] or ["qwen3-0.6b"]:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(shape, Path(folder)))
        print(json.dumps(rows[-1]), flush=True)
        torch.cuda.empty_cache()
    what = f"random weights in bfloat16 from local disk; logits of {len(PROMPTS)} prompts of 5 to 408 tokens"
    packages = "torch", "transformers", "safetensors", "flashinfer-python"
    write(Path(__file__), {"what": what, "gpu": torch.cuda.get_device_name(), "rows": rows}, packages)


if __name__ == "__main__":
    main()
