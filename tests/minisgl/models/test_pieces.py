"""What is read of a checkpoint's file, and where it goes: arithmetic, without a file."""

from pathlib import Path

import pytest
import torch

from minisgl.layers.weight import Slot
from minisgl.models import pieces
from minisgl.models.pieces import Misfit, Quantized, Stored, cut, parse

pytestmark = pytest.mark.cpu

FILE = Path("model.safetensors")


def test_a_tensor_begins_behind_the_header() -> None:
    header = b'{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]}}'
    assert parse(FILE, header) == {"a": Stored(FILE, "BF16", (2, 3), 8 + len(header) + 4)}


def test_whole_rows_are_read_as_they_are_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 3 * 4 * 4)  # three rows
    target = torch.empty(8, 4)
    found = list(cut(Slot("a", target, 0, 2), Stored(FILE, "F32", (20, 4), 1000)))
    assert [(piece.offset, piece.num_bytes) for piece in found] == [(1032, 48), (1080, 48), (1128, 32)]
    assert all(piece.is_plain for piece in found)
    assert [piece.target.data_ptr() for piece in found] == [target[row:].data_ptr() for row in (0, 3, 6)]


def test_columns_come_out_of_whole_rows() -> None:
    (piece,) = cut(Slot("a", torch.empty(5, 2), 1, 6), Stored(FILE, "F32", (5, 8), 0))
    assert (piece.offset, piece.num_bytes, piece.shape) == (0, 5 * 8 * 4, (5, 8))
    assert piece.part == (slice(None), slice(6, 8))
    assert not piece.is_plain


@pytest.mark.parametrize(
    ("target", "is_plain"),
    [
        (torch.empty(4, dtype=torch.bfloat16), True),
        (torch.empty(4, dtype=torch.float16), False),
        (torch.empty(4), False),
        (torch.empty(8, dtype=torch.bfloat16)[::2], False),
    ],
    ids=["the same", "another type", "a wider type", "with gaps"],
)
def test_only_the_same_bytes_are_plain(target: torch.Tensor, is_plain: bool) -> None:
    assert [piece.is_plain for piece in cut(Slot("a", target), Stored(FILE, "BF16", (4,), 0))] == [is_plain]


@pytest.mark.parametrize("shape", [(4,), (4, 3), (3, 4, 1), (4, 5)])
def test_another_shape_does_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(Misfit, match=r"this model needs \[3, 4\] from 1 on"):
        list(cut(Slot("a", torch.empty(3, 4), 0, 1), Stored(FILE, "F32", shape, 0)))


def test_a_quantized_tensor_is_told_from_one_that_does_not_fit() -> None:
    with pytest.raises(Quantized, match="stored as I8"):
        list(cut(Slot("a", torch.empty(3)), Stored(FILE, "I8", (3,), 0)))
