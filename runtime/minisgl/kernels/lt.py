"""cuBLASLt through ctypes: the ways it proposes for y = x W^T in 16 bits, each to be run by itself.

torch takes the first; the others are among the same library's kernels, with other tiles and clusters.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

MOST_WAYS = 8
WORKSPACE_BYTES = 64 * 2**20

# From cublasLt.h and library_types.h.
COMPUTE_32F, R_32F, TYPES = 68, 0, {torch.bfloat16: 14, torch.float16: 2}
DESCRIPTION_TRANSPOSE_A, TRANSPOSED, PREFERENCE_WORKSPACE = 3, 1, 1


class _Way(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


Multiply = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]  # x, W, y


@cache
def _library() -> Any:
    major = (torch.version.cuda or "").partition(".")[0]
    return ctypes.CDLL(f"libcublasLt.so.{major}")  # torch has loaded it


@cache
def _handle(device: int) -> ctypes.c_void_p:
    del device  # one for each
    handle = ctypes.c_void_p()
    _check(_library().cublasLtCreate(ctypes.byref(handle)))
    return handle


@cache
def _workspace(device: int) -> torch.Tensor:
    return torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=f"cuda:{device}")


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"cuBLASLt: status {status}")


def ways(rows: int, weight: torch.Tensor) -> list[Multiply]:
    """What cuBLASLt proposes for x [rows, in] and weight [out, in], contiguous, best first as it believes."""
    library, device = _library(), weight.device.index or 0
    outs, ins = weight.shape
    kind = TYPES[weight.dtype]
    description, preference = ctypes.c_void_p(), ctypes.c_void_p()
    _check(library.cublasLtMatmulDescCreate(ctypes.byref(description), COMPUTE_32F, R_32F))
    transposed = ctypes.c_int(TRANSPOSED)
    _check(library.cublasLtMatmulDescSetAttribute(description, DESCRIPTION_TRANSPOSE_A, ctypes.byref(transposed), 4))
    # It knows columns: what is contiguous here stands first.
    layouts = [ctypes.c_void_p() for _ in range(3)]
    for layout, (fast, slow) in zip(layouts, ((ins, outs), (ins, rows), (outs, rows)), strict=True):
        sizes = ctypes.c_uint64(fast), ctypes.c_uint64(slow), ctypes.c_int64(fast)
        _check(library.cublasLtMatrixLayoutCreate(ctypes.byref(layout), kind, *sizes))
    _check(library.cublasLtMatmulPreferenceCreate(ctypes.byref(preference)))
    most = ctypes.c_size_t(WORKSPACE_BYTES)
    _check(library.cublasLtMatmulPreferenceSetAttribute(preference, PREFERENCE_WORKSPACE, ctypes.byref(most), 8))
    found, count = (_Way * MOST_WAYS)(), ctypes.c_int()
    a, b, c = layouts
    _check(
        library.cublasLtMatmulAlgoGetHeuristic(
            *(_handle(device), description, a, b, c, c, preference, MOST_WAYS, found, ctypes.byref(count))
        )
    )
    library.cublasLtMatmulPreferenceDestroy(preference)
    one, zero = ctypes.c_float(1), ctypes.c_float(0)

    def way(each: _Way) -> Multiply:
        def multiply(x: torch.Tensor, w: torch.Tensor, y: torch.Tensor) -> None:
            pointers = [ctypes.c_void_p(t.data_ptr()) for t in (w, x, y)]
            _check(
                library.cublasLtMatmul(
                    *(_handle(device), description, ctypes.byref(one), pointers[0], a, pointers[1], b),
                    *(ctypes.byref(zero), pointers[2], c, pointers[2], c, ctypes.byref(each.algorithm)),
                    *(ctypes.c_void_p(_workspace(device).data_ptr()), ctypes.c_size_t(each.workspace)),
                    ctypes.c_void_p(torch.cuda.current_stream(device).cuda_stream),
                )
            )

        return multiply

    return [way(found[i]) for i in range(count.value)]
