"""Pieces of files into tensors, several at a time: while one reader waits for the disk, another converts or copies.

    to a CPU    disk ──► the weight itself, or a buffer ──► the part of it, converted
    to a GPU    disk ──► a pinned buffer ──► the weight itself, or the GPU's memory ──► the part of it, converted there

Memory beside the weights: one buffer a reader. Files are read, not mapped: a mapped page is waited for, one fault at a
time, by the very thread that should copy.
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

import torch

from minisgl.models.pieces import Piece
from minisgl.threads import available_cores

# A fast disk wants several reads at a time, and copies in the meantime. More readers than cores wait for each other
# instead: on two cores, from a disk of 1.3 GB/s, one brought 0.7 into memory, two 1.1. To an H200, four brought all
# that a disk of 1.65 GB/s gave, and 11 from the page cache; eight 1.5 and 9.6, one 1.5 and 4.9.
FEWEST, MOST = 2, 4


class Unreadable(Exception):
    """A file that could not be read, and why."""

    def __init__(self, file: Path, error: OSError) -> None:
        super().__init__(file, error)
        self.file, self.error = file, error


def read(pieces: Sequence[Piece], loaded: Callable[[int], None]) -> None:
    """Fill the targets of all pieces, begun in the given order; `loaded` hears the bytes of each. Raises Unreadable."""
    if not pieces:
        return
    waiting = deque(pieces)
    size = max((piece.num_bytes for piece in pieces if _needs_buffer(piece)), default=0)
    device = pieces[0].target.device
    readers = max(FEWEST, min(MOST, available_cores()))
    with ExitStack() as closing, ThreadPoolExecutor(readers, "weights") as pool:
        files = {file: _open(file, closing) for file in dict.fromkeys(piece.file for piece in pieces)}

        def work(_: int) -> None:
            # Each thread has its own mode and its own current GPU.
            on_device = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
            with torch.inference_mode(), on_device, _buffer(size, device) as buffer:
                try:
                    for piece in _taken(waiting):
                        _fill(piece, files[piece.file], buffer)
                        loaded(piece.target.nbytes)
                except BaseException:
                    waiting.clear()  # nobody goes on with a model that will not be
                    raise

        list(pool.map(work, range(readers)))


def _taken(waiting: deque[Piece]) -> Iterator[Piece]:
    """One after the other, until none is left to any reader."""
    with suppress(IndexError):
        while True:
            yield waiting.popleft()


def _needs_buffer(piece: Piece) -> bool:
    return piece.target.is_cuda or not piece.is_plain


def _fill(piece: Piece, file: int, buffer: torch.Tensor) -> None:
    target = piece.target
    if not _needs_buffer(piece):
        _read(piece, file, target.view(-1).view(torch.uint8))
        return
    _read(piece, file, buffer[: piece.num_bytes])
    stored = buffer[: piece.num_bytes].view(piece.dtype).view(piece.shape)
    if target.is_cuda and not piece.is_plain:
        stored = stored.to(target.device, non_blocking=True)
    target.copy_(stored[piece.part], non_blocking=True)
    if target.is_cuda:  # the buffer is free when it has been copied
        torch.cuda.current_stream().synchronize()


def _read(piece: Piece, file: int, memory: torch.Tensor) -> None:
    """Exactly the piece's bytes; a kernel may give fewer at a time."""
    view = memory.numpy().data
    done = 0
    try:
        while done < piece.num_bytes:
            if not (more := os.preadv(file, [view[done:]], piece.offset + done)):
                raise OSError(f"it ends before byte {piece.offset + piece.num_bytes}")
            done += more
    except OSError as error:
        raise Unreadable(piece.file, error) from error


def _open(file: Path, closing: ExitStack) -> int:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Unreadable(file, error) from error
    closing.callback(os.close, descriptor)
    return descriptor


@contextmanager
def _buffer(num_bytes: int, device: torch.device) -> Iterator[torch.Tensor]:
    """Memory for one piece. For a GPU it is pinned, and no longer than that: torch would keep its own for ever."""
    if device.type != "cuda":
        yield torch.empty(num_bytes, dtype=torch.uint8)
        return
    # Whole pages of its own: what is pinned are pages, and none can be pinned twice.
    buffer = torch.frombuffer(mmap.mmap(-1, num_bytes), dtype=torch.uint8)
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    torch.cuda.check_error(int(runtime.cudaHostRegister(buffer.data_ptr(), num_bytes, 0)))
    try:
        yield buffer
    finally:
        torch.cuda.check_error(int(runtime.cudaHostUnregister(buffer.data_ptr())))
