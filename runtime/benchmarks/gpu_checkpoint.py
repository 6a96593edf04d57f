"""A checkpoint of real shapes on a GPU: how fast it loads, and whether transformers computes the same from it.

    python3 runtime/benchmarks/gpu_checkpoint.py [shape ...] [--fp8 | --in-memory]
                                                                     qwen3-0.6b (default), qwen3-14b, llama-8b, tiny

Random weights are made on the GPU and written to a temporary folder (14B: 30 GB). With nothing in the page cache
(emptied as root, else for these files) the disk's own speed, then our start with its phases. Then the logits behind 32
random prompts and the greedy answers of 16 tokens to 8 of them, ours and those of transformers in bfloat16 on the same
GPU, and both beside transformers in float32: how far 16 bits alone lead. With --fp8 also ours with the KV cache in fp8.
With --in-memory nothing is written and no loading measured: our weights are copied from transformers' model on the GPU.
Prints a row a shape, writes results/gpu_checkpoint.json (or gpu_checkpoint_in_memory.json); on a CPU ("tiny" only) to
try it, without the file.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from disk import forget, is_forgotten, rates
from report import write
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from gpu import COMMON, SHAPES
from minisgl.args import LaunchArgs
from minisgl.distributed.group import Group
from minisgl.engine.batch import Batch
from minisgl.layers.weight import Slot
from minisgl.messages import SamplingParams
from minisgl.models import registry, weights
from minisgl.plan.model import ModelConfig
from minisgl.scheduler.driver import Driver, build_engine

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FILE_BYTES = 4 * 2**30
WRITERS, WRITTEN = 8, 2**25  # threads, and numbers that one of them takes at a time
PAGE = 64
PROMPTS = [np.random.default_rng(i).integers(0, 100_000, 5 + 13 * i).tolist() for i in range(32)]
ANSWERED, ANSWER = 8, 16


def save_config(shape: str, folder: Path) -> None:
    kind = {"model_type": shape.partition("-")[0].replace("tiny", "qwen3")}  # what transformers looks at
    (folder / "config.json").write_text(json.dumps(SHAPES[shape] | COMMON | kind))


def save(shape: str, folder: Path) -> int:
    """Random weights, in files of a few gigabytes; returns their bytes."""
    save_config(shape, folder)
    config = ModelConfig.read(folder)
    model = registry.find(config.architecture)(config, 64, Group(), torch.bfloat16, DEVICE)
    random = torch.Generator(DEVICE).manual_seed(0)
    where: dict[str, str] = {}
    files: list[dict[str, torch.Tensor]] = [{}]
    for slot in model.slots():
        slot.target.normal_(*spread(slot.name, slot.target.shape[-1]), generator=random)
        if sum(tensor.nbytes for tensor in files[-1].values()) >= FILE_BYTES:
            files.append({})
        files[-1][slot.name] = slot.target
        where[slot.name] = f"model-{len(files) - 1}.safetensors"
    with ThreadPoolExecutor(WRITERS) as pool:
        for number, tensors in enumerate(files):
            write_file(folder / f"model-{number}.safetensors", tensors, pool)
    total = sum(tensor.nbytes for tensors in files for tensor in tensors.values())
    (folder / weights.INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": where}))
    os.sync()
    return total


def spread(name: str, size: int) -> tuple[float, float]:
    """Mean and deviation of random weights whose lines have `size` numbers.

    A norm's lie about 1: with random signs, nothing would be left of an activation after some layers.
    """
    return (1, 0.1) if "norm" in name else (0, size**-0.5)


def write_file(path: Path, tensors: dict[str, torch.Tensor], pool: ThreadPoolExecutor) -> None:
    """As safetensors would, which has no more than one thread for it."""
    header, at = {}, 0
    for name, tensor in tensors.items():
        end = at + tensor.nbytes
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.pwrite(descriptor, len(told).to_bytes(8, "little") + told, 0)

    def put(part: torch.Tensor, offset: int) -> None:
        view = part.cpu().view(torch.uint8).numpy()
        assert os.pwrite(descriptor, view, offset) == view.nbytes

    at, tasks = 8 + len(told), []
    for tensor in tensors.values():
        for part in tensor.view(-1).split(WRITTEN):
            tasks.append(pool.submit(put, part, at))
            at += part.nbytes
    for task in tasks:
        task.result()
    os.close(descriptor)


def build(folder: Path, cache: str, size: int, *, dummy: bool = False) -> tuple[Driver, dict[str, Any]]:
    """An engine, the seconds of its start's phases, and the pace at which its weights came."""
    moments: dict[str, float] = {}
    reading: list[float] = []

    def phase(name: str, done: int | None, total: int | None) -> None:
        moments.setdefault(name, time.perf_counter())
        if name == "weights" and total is not None:
            reading.append(time.perf_counter())

    args = LaunchArgs(
        model_path=str(folder),
        device=DEVICE,
        dtype="bfloat16",
        page_size=PAGE,
        num_tokens=65_536,
        max_seq_len_override=4096,
        kv_cache_dtype=cache,
        dummy_weight=dummy,
    )
    driver = Driver(build_engine(args, phase=phase))
    moments["warm-up"] = time.perf_counter()
    driver.engine.warm_up()
    ends = [*list(moments.values())[1:], time.perf_counter()]
    row: dict[str, Any] = {} if dummy else {"load_gb_per_s": round(size / 1e9 / (reading[-1] - reading[0]), 2)}
    phases = {name: round(end - moments[name], 2) for name, end in zip(moments, ends, strict=True)}
    if not dummy:
        row["phase_gb_per_s"] = round(size / 1e9 / phases["weights"], 2)
    return driver, row | {"phase_seconds": phases}


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


def transformers_model(folder: Path) -> Any:
    """Made on the device and filled file by file: there is never a second copy in the host's memory."""
    with torch.device(DEVICE):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    missing = set(model.state_dict())
    for file in folder.glob("*.safetensors"):
        found = load_file(file, device=DEVICE)
        assert not model.load_state_dict(found, strict=False).unexpected_keys
        missing -= found.keys()
    assert missing <= {"lm_head.weight"}, missing
    model.tie_weights()
    return model.eval()


def their_logits(model: Any, prompts: list[list[int]]) -> torch.Tensor:
    return torch.cat([model(torch.tensor([p], device=DEVICE), logits_to_keep=1).logits[:, -1].float() for p in prompts])


def their_answers(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    options = {"max_new_tokens": ANSWER, "min_new_tokens": ANSWER, "do_sample": False, "pad_token_id": 0}
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt], device=DEVICE)
        told = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        answers.append(told[0, len(prompt) :].tolist())
    return answers


def free() -> None:
    gc.collect()
    torch.cuda.empty_cache()


@torch.inference_mode()
def measure(shape: str, folder: Path, *, narrow: bool) -> dict[str, Any]:
    began = time.perf_counter()
    size = save(shape, folder)
    free()
    seconds = time.perf_counter() - began
    row: dict[str, Any] = {"shape": shape, "gigabytes": round(size / 1e9, 2)}
    row["write_gb_per_s"] = round(size / 1e9 / seconds, 2)
    files = sorted(folder.glob("*.safetensors"))
    row |= rates(files)
    forget(files)
    row["from_disk"] = is_forgotten(files[0])
    driver, told = build(folder, "auto", size)
    row |= told
    row["share_of_the_disk"] = round(told["load_gb_per_s"] / max(row["disk_gb_per_s_1"], row["disk_gb_per_s_8"]), 2)
    print(json.dumps(row), flush=True)
    ours = logits(driver, PROMPTS)
    greedy = SamplingParams(ANSWER, temperature=0, ignore_eos=True)
    answers = driver.generate(PROMPTS[:ANSWERED], greedy)
    del driver
    free()
    if narrow:
        driver, told = build(folder, "fp8", size)
        row["load_again_gb_per_s"] = told["load_gb_per_s"]
        narrowed = compare(logits(driver, PROMPTS), ours)
        row["fp8_against_bf16"] = narrowed | agreement(driver.generate(PROMPTS[:ANSWERED], greedy), answers)
        del driver
        free()
    return row | beside_transformers(transformers_model(folder), ours, answers)


def beside_transformers(model: Any, ours: torch.Tensor, answers: list[list[int]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    theirs = their_logits(model, PROMPTS)
    row["against_transformers"] = compare(ours, theirs) | agreement(answers, their_answers(model, PROMPTS[:ANSWERED]))
    assert torch.get_float32_matmul_precision() == "highest", "float32 must not be TF32"
    exact = their_logits(model.float(), PROMPTS)
    row["ours_against_float32"] = compare(ours, exact)
    row["transformers_against_float32"] = compare(theirs, exact)
    return row


@torch.inference_mode()
def measure_in_memory(shape: str, folder: Path) -> dict[str, Any]:
    save_config(shape, folder)
    with torch.device(DEVICE):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16).eval()
    random = torch.Generator(DEVICE).manual_seed(0)
    theirs = model.state_dict()
    for name, tensor in theirs.items():
        tensor.normal_(*spread(name, tensor.shape[-1]), generator=random)

    def fill(slots: Iterable[Slot]) -> int:
        copied = 0
        for slot in slots:
            part = theirs[slot.name].narrow(slot.dim, slot.start, slot.target.shape[slot.dim])
            copied += slot.target.copy_(part).nbytes
        return copied

    with mock.patch.object(weights, "fill_randomly", fill):
        driver, told = build(folder, "auto", 0, dummy=True)
    print(json.dumps({"shape": shape} | told), flush=True)
    ours = logits(driver, PROMPTS)
    answers = driver.generate(PROMPTS[:ANSWERED], SamplingParams(ANSWER, temperature=0, ignore_eos=True))
    gigabytes = round(driver.engine.weight_bytes / 1e9, 2)
    del driver
    free()
    return {"shape": shape, "gigabytes": gigabytes} | told | beside_transformers(model, ours, answers)


def main() -> None:
    rows = []
    shapes = [word for word in sys.argv[1:] if not word.startswith("--")]
    in_memory = "--in-memory" in sys.argv
    for shape in shapes or ["qwen3-0.6b"]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            rows.append(
                measure_in_memory(shape, folder) if in_memory else measure(shape, folder, narrow="--fp8" in sys.argv)
            )
        print(json.dumps(rows[-1]), flush=True)
        free()
    if DEVICE == "cpu":
        return
    source = "made on the GPU" if in_memory else "from local disk"
    what = f"random weights in bfloat16 {source}; logits of {len(PROMPTS)} prompts of 5 to 408 tokens"
    packages = "torch", "transformers", "safetensors", "flashinfer-python", "flash-attn-4"
    result = {"what": what, "gpu": torch.cuda.get_device_name(), "rows": rows}
    write(Path(__file__), result, packages, "_in_memory" if in_memory else "")


if __name__ == "__main__":
    main()
