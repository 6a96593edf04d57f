"""NCCL called directly: collectives on the current CUDA stream, without torch.distributed's bookkeeping around each.

A call costs the CPU a few microseconds, allocates nothing and can be captured in a CUDA graph. The library is the one
that torch has loaded. Ranks meet over a file; what goes over the wire is NCCL's own business.
"""

from __future__ import annotations

import ctypes
import os
import time
from ctypes import POINTER, byref, c_char, c_char_p, c_int, c_size_t, c_void_p
from pathlib import Path

import torch

from minisgl.distributed.base import Reduction

LIBRARY = "libnccl.so.2"
TYPES = {  # ncclDataType_t
    torch.int8: 0,
    torch.uint8: 1,
    torch.int32: 2,
    torch.int64: 4,
    torch.float16: 6,
    torch.float32: 7,
    torch.float64: 8,
    torch.bfloat16: 9,
}
OPERATIONS = {Reduction.SUM: 0, Reduction.MIN: 3}  # ncclRedOp_t


class UniqueId(ctypes.Structure):
    """ncclUniqueId: what rank 0 makes up and the others must know."""

    _fields_ = (("internal", c_char * 128),)


class Nccl:
    """One communicator over `size` ranks, each with its own current CUDA device. RuntimeError names what failed."""

    def __init__(self, rank: int, size: int, folder: Path, timeout_seconds: float) -> None:
        self.rank, self.size = rank, size
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")  # the ranks share a machine: listen on no other interface
        self._library = _declare(ctypes.CDLL(LIBRARY))
        self._communicator = c_void_p()
        unique = self._meet(folder / "nccl-id", timeout_seconds)
        self._check(self._library.ncclCommInitRank(byref(self._communicator), size, unique, rank), "ncclCommInitRank")

    def all_reduce(self, x: torch.Tensor, reduction: Reduction) -> None:
        x_at, count, kind, stream = self._describe(x)
        operation = OPERATIONS[reduction]
        code = self._library.ncclAllReduce(x_at, x_at, count, kind, operation, self._communicator, stream)
        self._check(code, "ncclAllReduce")

    def gather(self, x: torch.Tensor) -> list[torch.Tensor] | None:
        """NCCL gathers on every rank; the copies beside rank 0's are not looked at."""
        x = x.contiguous()
        result = x.new_empty((self.size, *x.shape))
        x_at, count, kind, stream = self._describe(x)
        code = self._library.ncclAllGather(x_at, result.data_ptr(), count, kind, self._communicator, stream)
        self._check(code, "ncclAllGather")
        return list(result) if self.rank == 0 else None

    def broadcast(self, x: torch.Tensor) -> None:
        x_at, count, kind, stream = self._describe(x)
        self._check(
            self._library.ncclBroadcast(x_at, x_at, count, kind, 0, self._communicator, stream), "ncclBroadcast"
        )

    def close(self) -> None:
        self._check(self._library.ncclCommDestroy(self._communicator), "ncclCommDestroy")

    def _meet(self, file: Path, timeout_seconds: float) -> UniqueId:
        unique = UniqueId()
        if self.rank == 0:
            self._check(self._library.ncclGetUniqueId(byref(unique)), "ncclGetUniqueId")
            fresh = file.with_suffix(".new")
            fresh.write_bytes(bytes(unique))
            fresh.rename(file)  # whole or not at all
            return unique
        deadline = time.monotonic() + timeout_seconds
        while not file.exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"rank 0 did not show up within {timeout_seconds:g} s")
            time.sleep(0.01)
        return UniqueId.from_buffer_copy(file.read_bytes())

    def _describe(self, x: torch.Tensor) -> tuple[int, int, int, int]:
        assert x.is_cuda, "NCCL moves GPU memory only"
        assert x.is_contiguous(), "NCCL sees memory, not strides"
        return x.data_ptr(), x.numel(), TYPES[x.dtype], torch.cuda.current_stream().cuda_stream

    def _check(self, code: int, call: str) -> None:
        if code:
            name = self._library.ncclGetErrorString(code).decode()
            more = self._library.ncclGetLastError(self._communicator or None)
            raise RuntimeError(f"{call}: {name}" + (f" ({more.decode().strip()})" if more else ""))


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """The C signatures: a pointer passed as Python's default int would lose its upper half."""
    buffers = (c_void_p, c_void_p, c_size_t, c_int)
    signatures = {
        "ncclGetUniqueId": (POINTER(UniqueId),),
        "ncclCommInitRank": (POINTER(c_void_p), c_int, UniqueId, c_int),
        "ncclAllReduce": (*buffers, c_int, c_void_p, c_void_p),
        "ncclAllGather": (*buffers, c_void_p, c_void_p),
        "ncclBroadcast": (*buffers, c_int, c_void_p, c_void_p),
        "ncclCommDestroy": (c_void_p,),
        "ncclGetErrorString": (c_int,),
        "ncclGetLastError": (c_void_p,),
    }
    for name, arguments in signatures.items():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = c_char_p if name in ("ncclGetErrorString", "ncclGetLastError") else c_int
    return library
