"""Weights from safetensors files into a model's slots; what is read is planned in `pieces` and done in `reader`.

No other format is read: a pickled checkpoint can run code. Knows nothing of what the tensors mean.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from os.path import lexists
from pathlib import Path
from threading import Lock

import torch
from safetensors import SafetensorError, safe_open

from minisgl.errors import StartError
from minisgl.layers.weight import Slot
from minisgl.models.pieces import Misfit, Piece, Quantized, Stored, cut, parse
from minisgl.models.reader import Unreadable, read
from minisgl.termination import Reason

Progress = Callable[[int, int], None]  # bytes done, bytes in all

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
NUM_DRAWN = 1_048_573  # prime: in no matrix do two rows begin alike
REPORT_BYTES = 64 * 2**20  # loaded between two reports, or a hundredth of a smaller model


def load(slots: Iterable[Slot], folder: Path, progress: Progress = lambda done, total: None) -> int:
    """Fill every slot from the checkpoint in `folder`; returns the bytes of the weights on this rank.

    `progress` hears 0 first, then rising numbers, the total last.
    """
    slots = list(slots)
    total = num_bytes(slots)
    count = _Count(total, progress)
    by_file = defaultdict(list)
    for slot, file in zip(slots, _files(slots, folder), strict=True):
        by_file[file].append(slot)
    pieces: list[Piece] = []
    for file, wanted in by_file.items():
        stored = _look(file)
        for slot in wanted:
            if slot.name not in stored:
                raise _broken(f"{file} has no tensor {slot.name}")
            try:
                pieces += cut(slot, stored[slot.name])
            except Quantized as error:
                raise StartError(Reason.UNSUPPORTED_MODEL, f"tensor {slot.name} in {file} {error}") from error
            except Misfit as error:
                raise _broken(f"tensor {slot.name} in {file} {error}") from error
    try:
        read(sorted(pieces, key=lambda piece: (piece.file, piece.offset)), count.add)
    except Unreadable as error:
        raise _unreadable(error.file, error.error) from error
    return total


class _Count:
    """Bytes that are loaded, told now and then."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total, self._progress, self._lock = total, progress, Lock()
        self._done = self._told = 0
        progress(0, total)

    def add(self, num_bytes: int) -> None:
        with self._lock:
            self._done += num_bytes
            if self._done - self._told >= min(REPORT_BYTES, self._total // 100) or self._done == self._total:
                self._told = self._done
                self._progress(self._done, self._total)


def fill_randomly(slots: Iterable[Slot], seed: int = 0) -> int:
    """Random weights of a sane size (each output keeps the scale of its input), equal on every run.

    The same million numbers over and over, since drawing billions takes minutes.
    """
    slots = list(slots)
    drawn = torch.randn(NUM_DRAWN, generator=torch.Generator().manual_seed(seed))
    at = 0
    for slot in slots:
        flat = slot.target.view(-1)
        scale = slot.target.shape[-1] ** -0.5 if slot.target.dim() > 1 else 1.0
        numbers = (drawn * scale).to(flat)
        done = 0
        while done < len(flat):
            part = numbers[at : at + len(flat) - done]
            flat[done : done + len(part)] = part
            done += len(part)
            at = (at + len(part)) % NUM_DRAWN
    return num_bytes(slots)


def num_bytes(slots: Iterable[Slot]) -> int:
    return sum(slot.target.nbytes for slot in slots)


def _files(slots: list[Slot], folder: Path) -> list[Path]:
    """The file of each slot's tensor."""
    # A link to nowhere counts: the file was meant to be here.
    if lexists(folder / INDEX):
        where = _read_index(folder / INDEX)
        if missing := [slot.name for slot in slots if slot.name not in where]:
            raise _broken(f"{folder / INDEX} names no file for tensor {missing[0]}")
        return [folder / where[slot.name] for slot in slots]
    if lexists(folder / SINGLE):
        return [folder / SINGLE] * len(slots)
    others = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.gguf") for path in folder.glob(pattern))
    found = f"only {', '.join(others[:3])}" if others else "no weights"
    raise StartError(
        Reason.MODEL_LOAD_FAILED,
        f"{folder} holds {found}; weights are read from {SINGLE} (or {INDEX} and its files), never from other formats",
    )


def _read_index(path: Path) -> dict[str, str]:
    try:
        where = json.loads(path.read_text())["weight_map"]
        for file in where.values():
            # The hub's cache links to files elsewhere, but an index names its neighbours.
            if Path(file).is_absolute() or ".." in Path(file).parts:
                raise _broken(f"{path} names {file}, which is not in its folder")
    except OSError as error:
        raise _unreadable(path, error) from error
    except KeyError as error:
        raise _broken(f"{path} has no {error}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _broken(f"{path} cannot be read: {error}") from error
    return dict(where)


def _look(file: Path) -> dict[str, Stored]:
    """What a file holds, once safetensors has found nothing wrong with it."""
    try:
        with file.open("rb") as opened:  # safetensors would call any failure "No such file"
            with safe_open(file, framework="np"):
                pass  # checks the header against itself and against the file's size
            return parse(file, opened.read(int.from_bytes(opened.read(8), "little")))
    except (OSError, SafetensorError) as error:
        raise _unreadable(file, error) from error


def _broken(what: str) -> StartError:
    return StartError(Reason.MODEL_LOAD_FAILED, f"{what}; the checkpoint is incomplete or not of this model")


def _unreadable(file: Path, error: Exception) -> StartError:
    """Why a file of the checkpoint could not be opened, and whose business it is."""
    if isinstance(error, PermissionError):
        return StartError(Reason.MODEL_LOAD_FAILED, f"{file} may not be read by this user; grant it")
    if isinstance(error, FileNotFoundError):
        link = f"is a link to {file.readlink()}, which does not exist" if file.is_symlink() else "does not exist"
        return _broken(f"{file} {link}")
    return _broken(f"{file} cannot be read: {error}")
