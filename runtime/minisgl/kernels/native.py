"""Kernels in C for one compute thread of a CPU: `*.c`, compiled for this very CPU when an engine starts.

Compiling takes a second and leaves nothing behind; without a compiler those that the image carries are taken. Several
compute threads are better served by torch, which divides its operations among them.
"""

from __future__ import annotations

import ctypes
import logging
import tempfile
from ctypes import c_float, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch

from minisgl.errors import StartError
from minisgl.kernels.compiled import built, compile_into, compiler

SUFFIXES = {torch.bfloat16: "bf16", torch.float32: "f32"}

log = logging.getLogger(__name__)


class Shape(ctypes.Structure):
    """`Shape` of native.c: a step of decode attention."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("rows", "heads", "kv_heads", "dim", "page_size", "width")),
        *((name, c_int64) for name in ("q_stride", "k_stride", "v_stride")),
        ("scale", c_float),
    )


ARGUMENTS = {
    "can_multiply": (),
    "pack": (c_void_p, c_int64, c_int64, c_void_p),
    "multiply": (c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_int64, c_int64, c_void_p),
    "decode": (ctypes.POINTER(Shape), *(c_void_p,) * 10),
    "add_norm": (c_void_p, c_void_p, c_void_p, c_float, c_int64, c_int64, c_void_p),
    "gate": (c_void_p, c_int64, c_int64, c_void_p),
    "rotate": (c_void_p, c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_int64),
}


@cache
def is_usable() -> bool:
    """Whether the kernels are the better choice here, and compile."""
    if torch.get_num_threads() != 1:
        return False
    if compiler() is None and built() is None:
        log.info("no C compiler, and no kernels that were built for this CPU; torch computes instead")
        return False
    try:
        library()
    except StartError as error:
        log.warning("%s; torch computes instead", error)
        return False
    return True


@cache
def library() -> ctypes.CDLL:
    """The compiled sources, their functions named like `gate_bf16`. StartError says what the compiler did not like."""
    if compiler() is None and (found := built()) is not None:
        log.info("kernels built for %s", found.stem)
        compiled = ctypes.CDLL(str(found))
    else:
        with tempfile.TemporaryDirectory(prefix="minisgl-native-") as folder:
            target = Path(folder) / "native.so"
            compile_into(target)
            compiled = ctypes.CDLL(str(target))
    for name, arguments in ARGUMENTS.items():
        for suffix in SUFFIXES.values():
            function = getattr(compiled, f"{name}_{suffix}")
            function.argtypes = arguments
            function.restype = None if arguments else ctypes.c_int
    return compiled


class Kernels:
    """The kernels of one dtype, over contiguous tensors."""

    def __init__(self, dtype: torch.dtype) -> None:
        names = (f"{name}_{SUFFIXES[dtype]}" for name in ("decode", "add_norm", "gate", "rotate"))
        self.decode, self._add_norm, self._gate, self._rotate = (getattr(library(), name) for name in names)

    def add_norm(self, x: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """x += delta in place; returns x / rms(x) * weight. All [tokens, hidden], the weight [hidden]."""
        rows, size = x.shape
        out = torch.empty_like(x)
        self._add_norm(x.data_ptr(), delta.data_ptr(), weight.data_ptr(), eps, rows, size, out.data_ptr())
        return out

    def gate(self, both: torch.Tensor) -> torch.Tensor:
        """silu(gate) * up of [tokens, 2 * width]: a row is its gates, then its ups."""
        rows, width = len(both), both.shape[1] // 2
        out = both.new_empty(rows, width)
        self._gate(both.data_ptr(), rows, width, out.data_ptr())
        return out

    def rotate(
        self, x: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor], positions: torch.Tensor, heads: int
    ) -> None:
        """Rotate the first `heads` heads of x [tokens, heads or more, dim] in place; positions int64 [tokens]."""
        cosine, sine = tables
        pointers = x.data_ptr(), cosine.data_ptr(), sine.data_ptr(), positions.data_ptr()
        self._rotate(*pointers, len(x), x.stride(0), heads, x.shape[2])
