"""The memory of a device: of GPUs by name, of the one that is here, and what is gone of it before an engine looks.

No torch: NVIDIA's management library is asked through ctypes, a container's limit is read from its cgroup.
"""

from __future__ import annotations

import ctypes
import re
from decimal import Decimal
from pathlib import Path

from minisgl.errors import UsageError

MIB = 2**20
# MiB as nvidia-smi and the node label nvidia.com/gpu.memory report them (NVML's memory.total with ECC on). Most are
# listed in thundergolfer.com/blog/nvidia-gpu-memory-capacity; B200: the nvidia-smi of DGX B200 machines.
GPUS = {
    "a10": 23_028,
    "a10g": 23_028,
    "a100-40gb": 40_960,
    "a100-80gb": 81_920,
    "b200": 183_359,
    "h100": 81_559,
    "h200": 143_771,
    "l4": 23_034,
    "l40s": 46_068,
    "t4": 15_360,
}
PRODUCT_LABEL, MEMORY_LABEL = "nvidia.com/gpu.product", "nvidia.com/gpu.memory"

# Reserved by the driver (0.6 GiB of an H200), CUDA's context and NCCL's buffers: not seen by torch as free.
GPU_OWN_BYTES = 1280 * MIB
# Anonymous memory of the processes around the engine (measured: 134 MiB), and of a rank with torch (321 to 340 MiB).
CPU_OWN_BYTES = 144 * MIB
CPU_RANK_BYTES = 320 * MIB

UNITS = {"": 1, **{u: 1000**p for p, u in enumerate("kMGT", 1)}, **{f"{u}i": 1024**p for p, u in enumerate("KMGT", 1)}}


def read_quantity(text: str | int) -> int:
    """Bytes of `80Gi`, `80GiB`, `24G`, `1.5e9`; UsageError for anything else."""
    found = re.fullmatch(r"([0-9.]+(?:[eE][0-9]+)?)([kKMGT]?i?)B?", str(text).strip())
    try:
        # Bounded before it becomes an int: 1e999999 would be one of 400 KB, and no program reads past 64 bits.
        if found and found[2] in UNITS and 1 <= (size := Decimal(found[1]) * UNITS[found[2]]) < 2**63:
            return int(size)
    except ArithmeticError:  # 1.2.3, 1e999999999
        pass
    raise UsageError(f"{text!r} is no amount of memory; write it as 80Gi, 24G or in bytes")


def gpu_bytes(name: str) -> int | None:
    """Memory of a GPU by its name here (`h200`) or by its product label (`NVIDIA-H100-80GB-HBM3`); None: not known.

    A part of a GPU (MIG, or a virtual one) has a label of its own and is not known.
    """
    words = name.lower().replace("_", "-").replace(" ", "-").split("-")
    if "mig" in words:
        return None
    words = [word for word in words if word not in ("nvidia", "tesla")]
    for size in range(len(words), 0, -1):
        if (known := GPUS.get("-".join(words[:size]))) is not None:
            return known * MIB if _is_plain(words[size:], known) else None
    if words[:1] == ["a100"]:
        return next((GPUS[f"a100-{word}"] * MIB for word in words if f"a100-{word}" in GPUS), None)
    return None


def _is_plain(rest: list[str], mib: int) -> bool:
    """Whether what follows a GPU's name leaves it its memory: better not known than known wrongly.

    An NVL has more, and a number tells what there is: H100-64GB, or a virtual GPU's share as in A10-8Q.
    """
    sizes = [int(found[0]) for word in rest if (found := re.match(r"\d+", word))]
    return "nvl" not in rest and all(abs(size - mib / 1024) <= 1 for size in sizes)


def free_at_start(device: str, memory: int, ranks: int) -> int:
    """Bytes that one rank will find free: `memory` is a GPU's, or on a CPU what all ranks share."""
    if device == "cuda":
        return max(0, memory - GPU_OWN_BYTES)
    return max(0, memory - CPU_OWN_BYTES - ranks * CPU_RANK_BYTES) // ranks


def memory_for(device: str, free: int, ranks: int) -> int:
    """The inverse: memory of which every rank finds `free` bytes."""
    return free + GPU_OWN_BYTES if device == "cuda" else free * ranks + CPU_OWN_BYTES + ranks * CPU_RANK_BYTES


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def visible_gpus(library: str = "libnvidia-ml.so.1") -> list[int]:
    """Bytes of each GPU that this container was given; empty without GPUs or without their library."""
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        return []
    if nvml.nvmlInit_v2() != 0:
        return []
    try:
        count = ctypes.c_uint()
        if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return []
        found = []
        for index in range(count.value):
            handle, memory = ctypes.c_void_p(), _Memory()
            if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) != 0:
                return []
            if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) != 0:
                return []
            found.append(int(memory.total))
        return found
    finally:
        nvml.nvmlShutdown()


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that this process can still take: the machine's, or the container's where that is smaller."""
    meminfo = dict(line.split(":", 1) for line in _read(root / "proc/meminfo").splitlines() if ":" in line)
    free = [int(meminfo.get("MemAvailable", "0 kB").split()[0]) * 1024]
    groups = root / "sys/fs/cgroup"
    for limit, used, stat in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        allowed, taken = _read(groups / limit).strip(), _read(groups / used).strip()
        if allowed.isdigit() and taken.isdigit():
            # Clean file pages count as used, but the kernel gives them back before it kills.
            reclaimable = dict(line.split() for line in _read(groups / stat).splitlines() if len(line.split()) == 2)
            free.append(int(allowed) - int(taken) + int(reclaimable.get("inactive_file", 0)))
    return max(0, min(free))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
