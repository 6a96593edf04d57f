"""Which bytes of a checkpoint go where: a tensor's place in its file, cut into pieces of some megabytes. Pure.

    file    [ header | tensor a ............ | tensor b ....... ]
    slot               whole rows: |piece|piece|     as many rows as fit into a piece
    slot               some columns: the same rows, of which `part` is taken once they are in memory

A piece is always one stretch of a file, so that reading never jumps: a rank that wants columns reads whole rows, which
the other ranks find in the page cache.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch

from minisgl.layers.weight import Slot

# Read at a time, by each reader into a buffer of this size: small, so that several readers still go through a file as
# one stream, which the kernel reads ahead of, and so that what is copied on is still in a core's cache.
PIECE_BYTES = 2 * 2**20
# A quantized tensor would convert without an error, to numbers that mean nothing.
STORED = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Stored(NamedTuple):
    """A tensor in a file: `offset` is its first byte's, from the file's begin."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int


class Piece(NamedTuple):
    """Bytes `offset` to `offset + num_bytes` of `file` are `shape` numbers; `part` of them belongs into `target`."""

    file: Path
    offset: int
    num_bytes: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    part: tuple[slice, ...]
    target: torch.Tensor

    @property
    def is_plain(self) -> bool:
        """Whether `target` holds exactly these bytes."""
        same = self.dtype == self.target.dtype and self.shape == tuple(self.target.shape)
        return same and self.target.is_contiguous()


class Misfit(Exception):
    """A stored tensor that a slot cannot be filled from, and why."""


class Quantized(Misfit):
    """One in a number format that is not read."""


def parse(file: Path, header: bytes) -> dict[str, Stored]:
    """The tensors that a safetensors header describes; that it is a sound one has been checked before."""
    tensors: dict[str, Any] = json.loads(header)
    begin = 8 + len(header)
    return {
        name: Stored(file, told["dtype"], tuple(told["shape"]), begin + told["data_offsets"][0])
        for name, told in tensors.items()
        if name != "__metadata__"
    }


def cut(slot: Slot, stored: Stored) -> Iterator[Piece]:
    """The pieces that fill the slot, in the file's order; Misfit."""
    target, shape = slot.target, stored.shape
    if (dtype := STORED.get(stored.dtype)) is None:
        raise Quantized(
            f"is stored as {stored.dtype}, as in a quantized checkpoint; use one in bfloat16, float16 or float32"
        )
    part = list(shape)
    if len(shape) == target.dim():
        part[slot.dim] = min(target.shape[slot.dim], shape[slot.dim] - slot.start)
    if part != list(target.shape):
        raise Misfit(f"has shape {list(shape)}, this model needs {list(target.shape)} from {slot.start} on")
    first = [slot.start if dim == slot.dim else 0 for dim in range(len(shape))]
    rest = tuple(slice(start, start + size) for start, size in zip(first[1:], part[1:], strict=True))
    row_bytes = prod(shape[1:]) * dtype.itemsize
    rows = max(1, PIECE_BYTES // row_bytes)
    for row in range(0, len(target), rows):
        chunk = target[row : row + rows]
        yield Piece(
            file=stored.file,
            offset=stored.offset + (first[0] + row) * row_bytes,
            num_bytes=len(chunk) * row_bytes,
            dtype=dtype,
            shape=(len(chunk), *shape[1:]),
            part=(slice(None), *rest),
            target=chunk,
        )
