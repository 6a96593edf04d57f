"""Reading pieces: kernels that give less than asked, files that end, and readers that stop when one fails."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from minisgl.layers.weight import Slot
from minisgl.models import pieces, reader
from minisgl.models.pieces import Piece, Stored, cut
from minisgl.models.reader import Unreadable, read

pytestmark = pytest.mark.cpu

NUMBERS = torch.randn(64, 16)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "numbers"
    found.write_bytes(b"head" + NUMBERS.numpy().tobytes())
    return found


def planned(file: Path, target: torch.Tensor, dim: int = 0, start: int = 0) -> list[Piece]:
    return list(cut(Slot("a", target, dim, start), Stored(file, "F32", (64, 16), 4)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("piece_bytes", [1, 5 * 64, 2**20])
def test_every_way_of_cutting_gives_the_same(
    file: Path, dtype: torch.dtype, piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", piece_bytes)
    whole, columns = torch.empty(64, 16, dtype=dtype), torch.empty(64, 5, dtype=dtype)
    heard: list[int] = []
    read(planned(file, whole) + planned(file, columns, 1, 11), heard.append)
    assert torch.equal(whole, NUMBERS.to(dtype))
    assert torch.equal(columns, NUMBERS[:, 11:].to(dtype))
    assert sum(heard) == whole.nbytes + columns.nbytes


def test_a_kernel_may_give_less_than_asked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: whole(fd, [views[0][:7]], at))
    target = torch.empty(64, 16)
    read(planned(file, target), lambda num_bytes: None)
    assert torch.equal(target, NUMBERS)


def test_a_file_that_became_shorter_is_named(file: Path) -> None:
    os.truncate(file, 100)
    with pytest.raises(Unreadable) as caught:
        read(planned(file, torch.empty(64, 16)), lambda num_bytes: None)
    assert caught.value.file == file
    assert str(caught.value.error) == f"it ends before byte {4 + NUMBERS.nbytes}"


def test_nothing_more_is_read_after_a_failure(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 64)
    asked: list[int] = []

    def fail(descriptor: int, views: Sequence[Any], at: int) -> int:
        asked.append(at)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(Unreadable, match="Input/output error"):
        read(planned(file, torch.empty(64, 16)), lambda num_bytes: None)
    assert len(asked) <= reader.MOST


def test_no_descriptor_is_left(file: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    read(planned(file, torch.empty(64, 16)), lambda num_bytes: None)
    with pytest.raises(Unreadable):
        read(planned(file.with_name("gone"), torch.empty(64, 16)), lambda num_bytes: None)
    assert len(os.listdir("/proc/self/fd")) == before


def test_memory_beside_the_weights_is_a_buffer_for_each_reader(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 5 * 64)
    made: list[int] = []
    original = reader._buffer

    def seen(num_bytes: int, device: torch.device) -> Any:
        made.append(num_bytes)
        return original(num_bytes, device)

    monkeypatch.setattr(reader, "_buffer", seen)
    read(planned(file, torch.empty(64, 16)), lambda num_bytes: None)
    assert set(made) == {0}, "plain bytes need none on a CPU"
    made.clear()
    read(planned(file, torch.empty(64, 16, dtype=torch.bfloat16)), lambda num_bytes: None)
    assert set(made) == {5 * 64}
    assert reader.FEWEST <= len(made) <= reader.MOST
