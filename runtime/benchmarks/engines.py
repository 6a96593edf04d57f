"""The engines that cpu.py compares, behind one signature: answer `streams` prompts with `new` tokens each.

Greedy, end tokens ignored, no prefix cache (it would skip the prompts from the second round on), one thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers

from minisgl.args import LaunchArgs
from minisgl.messages import SamplingParams
from minisgl.scheduler.driver import Driver, build_engine

PROMPT = 32  # tokens
ROOM = 4096  # tokens of KV cache, enough for 8 streams

Run = Callable[[int, int], float]  # streams, new tokens of each: seconds


def prompts(streams: int) -> list[list[int]]:
    ids: list[list[int]] = np.random.default_rng(0).integers(1000, 40000, (streams, PROMPT)).tolist()
    return ids


def driver(folder: Path, dtype: str) -> Driver:
    args = {"model_path": str(folder), "device": "cpu", "dtype": dtype, "num_tokens": ROOM, "cache_type": "naive"}
    return Driver(build_engine(LaunchArgs.model_validate(args)))


def ours(folder: Path, dtype: str) -> Run:
    engine = driver(folder, dtype)

    def run(streams: int, new: int) -> float:
        sampling = SamplingParams(new, temperature=0, ignore_eos=True)
        began = time.perf_counter()
        answers = engine.generate(prompts(streams), sampling)
        seconds = time.perf_counter() - began
        expect(sum(map(len, answers)), streams * new)
        return seconds

    return run


def theirs(folder: Path, dtype: str) -> Run:
    """transformers.generate, the prompts as one batch."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model.train(False)

    @torch.inference_mode()
    def run(streams: int, new: int) -> float:
        ids = torch.tensor(prompts(streams))
        options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        began = time.perf_counter()
        out = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        seconds = time.perf_counter() - began
        expect(out.numel() - ids.numel(), streams * new)
        return seconds

    return run


def one_by_one(run: Run) -> Run:
    """What a server does that does not batch."""
    return lambda streams, new: sum(run(1, new) for _ in range(streams))


class Died(Exception):
    """A peer's process ended, or said that it cannot."""


class Peer:
    """vLLM in a process and environment of its own: `vllm_peer.py`, one JSON line asked, one answered."""

    def __init__(self, python: Path, folder: Path, dtype: str) -> None:
        self._log = Path(tempfile.gettempdir()) / f"minisgl-benchmark-vllm-{dtype}.log"
        script = Path(__file__).with_name("vllm_peer.py")
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # as we are: bound to one core it would wait for that one
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the process asks itself: no socket in between
            "VLLM_NO_USAGE_STATS": "1",
        }
        argv = [str(python), str(script), str(folder), dtype]
        pipe = subprocess.PIPE
        with self._log.open("w") as log:
            # The argv is fixed, and the interpreter is the caller's own choice.
            self._process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=log, text=True, env=env)  # noqa: S603

    def wait(self) -> None:
        """Until it has loaded."""
        self.version = str(self._read()["version"])

    def __call__(self, streams: int, new: int) -> float:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"prompts": prompts(streams), "new": new}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise Died(self._why()) from error
        answer = self._read()
        expect(int(answer["tokens"]), streams * new)
        return float(answer["seconds"])

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self) -> dict[str, float | str]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Died(self._why())
        answer: dict[str, float | str] = json.loads(line)
        return answer

    def _why(self) -> str:
        return f"its process ended with {self._process.wait()}; its words are in {self._log}"


def expect(tokens: int, wanted: int) -> None:
    if tokens != wanted:
        raise RuntimeError(f"{tokens} tokens instead of {wanted}")
