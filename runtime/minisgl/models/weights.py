"""Weights from safetensors files into a model's slots, tensor by tensor; each rank reads only its own part.

No other format is read: a pickled checkpoint can run code. Knows nothing of what the tensors mean.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from minisgl.errors import StartError
from minisgl.layers.weight import Slot
from minisgl.termination import Reason

Progress = Callable[[int, int], None]  # bytes done, bytes in all

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


def load(slots: Iterable[Slot], folder: Path, progress: Progress = lambda done, total: None) -> int:
    """Fill every slot from the checkpoint in `folder`; returns the bytes of the weights on this rank."""
    slots = list(slots)
    total = num_bytes(slots)
    by_file = defaultdict(list)
    for slot, file in zip(slots, _files(slots, folder), strict=True):
        by_file[file].append(slot)
    done = 0
    progress(done, total)
    for file, wanted in by_file.items():
        try:
            with safe_open(file, framework="pt") as tensors:
                names = set(tensors.keys())
                for slot in wanted:
                    if slot.name not in names:
                        raise _broken(f"{file} has no tensor {slot.name}")
                    _copy(slot, tensors.get_slice(slot.name), file)
                    done += slot.target.nbytes
                    progress(done, total)
        except (OSError, SafetensorError) as error:
            raise _broken(f"{file} cannot be read: {error}") from error
    return total


def fill_randomly(slots: Iterable[Slot], seed: int = 0) -> int:
    """Random weights of a sane size (each output keeps the scale of its input), equal on every run."""
    slots = list(slots)
    generator = torch.Generator().manual_seed(seed)
    for slot in slots:
        target = slot.target
        scale = target.shape[-1] ** -0.5 if target.dim() > 1 else 1.0
        target.copy_(torch.randn(target.shape, generator=generator) * scale)
    return num_bytes(slots)


def num_bytes(slots: Iterable[Slot]) -> int:
    return sum(slot.target.nbytes for slot in slots)


def _files(slots: list[Slot], folder: Path) -> list[Path]:
    """The file of each slot's tensor."""
    if (folder / INDEX).exists():
        try:
            where = json.loads((folder / INDEX).read_text())["weight_map"]
        except (ValueError, KeyError, OSError) as error:
            raise _broken(f"{folder / INDEX} cannot be read: {error}") from error
        if missing := [slot.name for slot in slots if slot.name not in where]:
            raise _broken(f"{folder / INDEX} names no file for tensor {missing[0]}")
        return [folder / where[slot.name] for slot in slots]
    if (folder / SINGLE).exists():
        return [folder / SINGLE] * len(slots)
    others = sorted(path.name for pattern in ("*.bin", "*.pt", "*.gguf") for path in folder.glob(pattern))
    found = f"only {', '.join(others[:3])}" if others else "no weights"
    raise StartError(
        Reason.MODEL_LOAD_FAILED,
        f"{folder} holds {found}; weights are read from {SINGLE} (or {INDEX} and its files), never from other formats",
    )


def _copy(slot: Slot, stored: object, file: Path) -> None:
    """Copy the slot's part of one stored tensor; `stored` is a safetensors slice, which reads only what is asked."""
    shape = list(stored.get_shape())  # type: ignore[attr-defined]
    part = [slice(None)] * len(shape)
    if len(shape) == slot.target.dim():
        size = slot.target.shape[slot.dim]
        part[slot.dim] = slice(slot.start, min(slot.start + size, shape[slot.dim]))
        shape[slot.dim] = part[slot.dim].stop - slot.start
    if shape != list(slot.target.shape):
        raise _broken(
            f"tensor {slot.name} in {file} has shape {stored.get_shape()}, "  # type: ignore[attr-defined]
            f"this model needs {list(slot.target.shape)} from {slot.start} on"
        )
    slot.target.copy_(stored[tuple(part)])  # type: ignore[index]


def _broken(what: str) -> StartError:
    return StartError(Reason.MODEL_LOAD_FAILED, f"{what}; the checkpoint is incomplete or not of this model")
