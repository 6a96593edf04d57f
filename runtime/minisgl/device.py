"""What this machine gives one process: devices, and matrix instructions that do not crash.

Call `prepare_cpu` before torch is imported (torch reads its environment once); this module imports torch only inside
functions. It knows nothing of models or launch arguments.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import platform
import sys
from collections.abc import MutableMapping
from pathlib import Path

from minisgl.errors import StartError
from minisgl.termination import Reason
from minisgl.threads import available_cores, threads_per_rank

log = logging.getLogger(__name__)

AMX_CAP = "AVX512_CORE_BF16"


# Folders of compiled kernels beneath $MINISGL_CACHE/jit, by the variable that its library reads.
KERNELS = {
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "CUTE_DSL_CACHE_DIR": "cute",
    "TVM_FFI_CACHE_DIR": "tvm",
    "CUDA_CACHE_PATH": "cuda",  # what the driver compiles
}
# What is built on CuTe keeps kernels in folders of its own.
ON_CUTE = {"FLASH_ATTENTION_CUTE_DSL_CACHE_DIR": "flash_attn", "QUACK_CACHE_DIR": "quack"}


def keep_kernels(environ: MutableMapping[str, str] = os.environ) -> None:
    """Have compiled kernels outlive this process in the folder that MINISGL_CACHE names, which may be a volume; what
    a variable of a library's own says goes first. Before these libraries are imported.
    """
    if named := environ.get("MINISGL_CACHE"):
        for variable, folder in KERNELS.items():
            environ.setdefault(variable, f"{named}/jit/{folder}")
    if cute := environ.get("CUTE_DSL_CACHE_DIR"):
        for variable, folder in ON_CUTE.items():
            environ.setdefault(variable, f"{cute}/{folder}")
    if "QUACK_CACHE_DIR" not in environ:  # its own choice is a folder below /tmp, whose code others could have written
        environ.setdefault("QUACK_CACHE_ENABLED", "0")


def prepare_cpu(ranks: int = 1, environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what torch and its libraries read at import: the thread count, and a cap where AMX is broken."""
    environ.setdefault("OMP_NUM_THREADS", str(threads_per_rank(available_cores(), ranks)))
    environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "ONEDNN_MAX_CPU_ISA" not in environ and amx_is_broken():
        environ["ONEDNN_MAX_CPU_ISA"] = AMX_CAP
        log.warning("AMX is advertised but has no tile palette (CPUID 0x1D is zero): oneDNN is capped at %s", AMX_CAP)


def has_avx512(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU has the instructions that oneDNN and our own kernels want for weights of 16 bits."""
    flags = next((line for line in _read(cpuinfo).splitlines() if line.startswith("flags")), "").split()
    return {"avx512bw", "avx512dq", "avx512vl"} <= set(flags)


def amx_is_broken(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """True where the CPU advertises AMX and its palette table is empty, as in some virtual machines.

    oneDNN takes the tile palette from CPUID leaf 0x1D; with an empty one its first bf16 matmul dies of SIGILL.
    """
    if platform.machine() not in ("x86_64", "AMD64") or "amx_tile" not in _read(cpuinfo):
        return False
    try:
        return _cpuid_eax(0x1D) == 0
    except OSError:  # no executable memory allowed: not knowing, the cap is the safe side
        return True


def _cpuid_eax(leaf: int) -> int:
    """Run the CPUID instruction (subleaf 0) on x86-64: eight lines of machine code in a page of our own."""
    code = bytes.fromhex("53 89f8 31c9 0fa2 5b c3")  # push rbx; mov eax,edi; xor ecx,ecx; cpuid; pop rbx; ret
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(code)
        start = ctypes.c_char.from_buffer(page)
        call = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint32)(ctypes.addressof(start))
        eax = int(call(leaf))
        del start  # the page cannot be closed while it is borrowed
    return eax


def resolve_device(wanted: str) -> str:
    """Decide "auto" and refuse a GPU that is not there: "cpu" or "cuda"."""
    if wanted == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise StartError(
            Reason.DEVICE_UNAVAILABLE,
            "--device cuda: no NVIDIA GPU is visible to this process; give the pod a GPU or use --device cpu",
        )
    return "cpu"


def generation() -> list[str]:
    """The GPU's here, as compilers call it: ["sm90"] of an H100 or H200; empty without a GPU."""
    import torch

    return [f"sm{torch.cuda.get_device_capability()[0]}0"] if torch.cuda.is_available() else []


def check_devices(device: str, ranks: int, visible: int) -> None:
    """Refuse more ranks than there are GPUs, before any rank loads or waits for one that cannot come."""
    if device == "cuda" and ranks > visible:
        raise StartError(
            Reason.DEVICE_UNAVAILABLE,
            f"--tensor-parallel-size {ranks} needs {ranks} GPUs, but {visible} "
            f"{'is' if visible == 1 else 'are'} visible to this process; use --tp {max(1, visible)}, or give the pod "
            f"{ranks} GPUs (CUDA_VISIBLE_DEVICES limits what is visible)",
        )


def num_devices(device: str) -> int:
    """How many devices of this kind a server may spread over; CPUs share the machine, so there are always enough."""
    if device != "cuda":
        return sys.maxsize
    import torch

    return torch.cuda.device_count()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
