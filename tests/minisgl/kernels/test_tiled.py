"""Which tiles a product takes: the rule alone, held to what was measured on an H200 (132 processors)."""

import pytest
import torch

from minisgl.kernels import tiled

pytestmark = pytest.mark.cpu

H200 = 132
QKV, OUT, GATE_UP, DOWN = (7168, 5120), (5120, 5120), (34816, 5120), (5120, 17408)  # outs and ins of Qwen3-14B
SMALL_QKV, SMALL_OUT, SMALL_GATE_UP = (4096, 1024), (1024, 2048), (6144, 1024)  # of Qwen3-0.6B


@pytest.mark.parametrize(
    ("rows", "shape", "gated", "width"),
    [
        (4096, GATE_UP, True, 128),
        (768, GATE_UP, True, 160),
        (384, GATE_UP, True, 160),
        (256, GATE_UP, True, None),  # 0.99 times as fast as torch
        (160, GATE_UP, True, None),  # 0.80
        (256, (28672, 4096), True, 224),
        (256, SMALL_GATE_UP, True, 128),
        (128, SMALL_GATE_UP, True, None),  # 0.98
        (4096, OUT, False, 128),
        (1024, OUT, False, 160),
        (768, QKV, False, None),  # 0.90
        (1024, (4096, 14336), False, None),  # 0.92
        (4096, DOWN, False, None),
        (2048, SMALL_QKV, False, 128),
        (384, SMALL_QKV, False, None),  # 0.95
        (2048, SMALL_OUT, False, 128),
        (1536, SMALL_OUT, False, None),  # 0.89
        (100, SMALL_QKV, False, None),
        (4096, (4096, 1000), False, None),  # lines that do not begin at 16 bytes
    ],
)
def test_tiles_are_taken_where_they_were_faster(
    rows: int, shape: tuple[int, int], gated: bool, width: int | None
) -> None:
    assert tiled.width(rows, *shape, H200, gated=gated) == width


def test_what_is_left_for_the_last_turn_is_not_used() -> None:
    assert tiled.used(256, 640, 128, 10) == 1
    assert tiled.used(256, 768, 128, 10) == 0.6  # 12 tiles: two turns
    assert tiled.used(128, 640, 128, 10) == 0.5
    assert tiled.used(100, 640, 128, 5) == 100 / 128  # a tile that is not full
    assert tiled.used(128, 600, 128, 5) == 600 / 640


def test_there_is_no_way_without_a_gpu() -> None:
    assert tiled.way(4096, torch.empty(4096, 1024), gated=False) is None
