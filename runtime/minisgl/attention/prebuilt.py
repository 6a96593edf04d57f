"""Whether FlashInfer has its modules where nothing can compile them: in an image, which carries those of `modules`.

An engine asks before it reads weights: what is missing is told in a sentence, not by a compiler that is not there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from minisgl.attention.modules import ARCHITECTURES, Module, asked
from minisgl.errors import StartError
from minisgl.plan.config import EngineConfig
from minisgl.termination import Reason

INSTEAD = "or use --attention-backend torch"


def check(config: EngineConfig, capability: tuple[int, int], gpu: str) -> None:
    """Raises StartError: the backend cannot have its kernels on this GPU."""
    if "fi" not in config.attention_backend.split(",") or not (absent := missing_tools()):
        return
    if not runs(built_for(), capability):
        own = ".".join(map(str, capability))
        raise StartError(
            Reason.DEVICE_UNAVAILABLE,
            f"the image's kernels of FlashInfer are for compute capability {' '.join(built_for())}, and {gpu} has "
            f"{own}; build it with --build-arg CUDA_ARCHITECTURES={own}{'a' * (capability[0] >= 9)}, {INSTEAD}",
        )
    model, dtype, cache = config.model, config.dtype, config.cache_dtype
    if any(not module.spec().is_aot for module in asked(dtype, cache, model.head_dim, capability[0])):
        raise StartError(
            Reason.DEVICE_UNAVAILABLE,
            f"FlashInfer has no compiled kernel for heads of {model.head_dim} in {dtype} over a KV cache in {cache}, "
            f"and lacks {' and '.join(absent)} to compile one; install that, {INSTEAD}",
        )


def has(module: Module) -> bool:
    """Whether FlashInfer has this one, or can compile it."""
    return not missing_tools() or bool(module.spec().is_aot)


@cache
def missing_tools() -> tuple[str, ...]:
    """What FlashInfer would compile with, and does not find here."""
    from flashinfer.jit.cpp_ext import get_cuda_path

    try:
        nvcc = os.environ.get("FLASHINFER_NVCC", f"{get_cuda_path()}/bin/nvcc")
    except (RuntimeError, OSError):  # it knows no CUDA toolkit, or no `which` to look for one
        nvcc = ""
    tools = {"nvcc": nvcc, "a C++ compiler": os.environ.get("CXX", "c++"), "ninja": "ninja"}
    return tuple(name for name, command in tools.items() if shutil.which(command) is None)


@cache
def built_for() -> Sequence[str]:
    """The GPUs that an image's modules were compiled for; none where they are not of our making."""
    from flashinfer.jit import env

    told = Path(env.FLASHINFER_AOT_DIR) / ARCHITECTURES
    return tuple(told.read_text().split()) if told.exists() else ()


def runs(architectures: Sequence[str], capability: tuple[int, int]) -> bool:
    """Whether one of these runs on the GPU: "8.0" on all of its generation from there on, "9.0a" on that one only."""
    for name in architectures:
        major, _, minor = name.partition(".")
        if minor.endswith("a") and (int(major), int(minor[:-1])) == capability:
            return True
        if not minor.endswith("a") and int(major) == capability[0] and int(minor.rstrip("f")) <= capability[1]:
            return True
    return not architectures  # not told: FlashInfer will find out
