"""Products of many rows on a Hopper GPU by quack's kernels: y = x W^T, and with it a gate that never goes to memory.

quack is what flash-attn-4 is built on, and comes with it. Its kernels end one tile's sums while the next tile is being
multiplied, which pays where a tile has few columns to go through, and they write silu(gate) * up in place of both.

All tiles take equally long, a processor takes one at a time: what is left for the last turn decides how wide they are.

    4 processors, 10 tiles       [1][2][3]  [1][2][3]  [1][2][.]  [1][2][.]      10 of 12 turns are used
    7 tiles, half as wide again  [1 ][2 ]   [1 ][2 ]   [1 ][2 ]   [1 ][. ]       7 of 8

A rule decides, not a clock: the same steps give the same bits after every start. On an H200 the products that it takes
are 0.99 to 1.15 times as fast as the faster of torch's and cuBLASLt's ways (`kernels.tuned`), gated ones 1.0 to 1.3
times (results/gpu_tiles.json).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch

HOPPER = 9
ROWS, WIDTHS = 128, (128, 160, 192, 224)  # of a tile
WIDEST_IN_TURNS = 192  # up to it two groups of warps take tiles in turn; beyond, they share one
CLUSTER = 2, 1  # two tiles one below the other fetch their weights once
USED, USED_GATED = 0.9, 0.93  # of all turns: less is slower than torch's
MOST_INS = 5120  # where a tile's sums are long, torch's kernels are as fast
# A gate that costs no launch pays for more than that beside few weights.
FEW_WEIGHTS, LEAST_ROWS = 2**23, 193
ALIGNED = 64  # columns: whole turns of a tile, whose lines begin at 16 bytes

Multiply = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]  # x, W, y


def width(rows: int, outs: int, ins: int, processors: int, *, gated: bool) -> int | None:
    """Of the tiles that multiply x [rows, ins] by W [outs, ins]; None: torch's own way is faster. Pure."""
    if ins % ALIGNED or outs % ALIGNED or rows < ROWS:
        return None
    best = max(WIDTHS, key=lambda width: used(rows, outs, width, processors))  # of equal ones the narrowest
    share = used(rows, outs, best, processors)
    if gated:
        pays = share >= USED_GATED or (rows >= LEAST_ROWS and outs * ins <= FEW_WEIGHTS)
    else:
        pays = share >= USED and ins <= MOST_INS
    return best if pays else None


def used(rows: int, outs: int, width: int, processors: int) -> float:
    """The share of all processors' work, in whole turns, that goes into the result."""
    tiles = -(-rows // ROWS) * -(-outs // width)
    turns = -(-tiles // processors)
    return rows * outs / (turns * processors * ROWS * width)


def way(rows: int, weight: torch.Tensor, *, gated: bool) -> Multiply | None:
    """x [rows, in] and weight [out, in] to y [rows, out], or gated: its first half is the gate of its second, and y is
    silu(gate) * up [rows, out / 2]; sums are in float32 and rounded once. All contiguous and of one 16-bit type.

    None: where it does not pay, or there is no Hopper GPU, or no quack.
    """
    if not weight.is_cuda or torch.cuda.get_device_capability(weight.device)[0] != HOPPER or not find_spec("quack"):
        return None
    processors = torch.cuda.get_device_properties(weight.device).multi_processor_count
    wide = width(rows, len(weight), weight.shape[1], processors, gated=gated)
    return None if wide is None else _gated(wide) if gated else _plain(wide)


def _plain(wide: int) -> Multiply:
    from quack.gemm_interface import gemm_tuned  # takes seconds

    untuned, config = gemm_tuned.fn, _config(wide)

    def multiply(x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor) -> None:
        untuned(x, weight.t(), y, config=config)

    return multiply


def _gated(wide: int) -> Multiply:
    from quack.gemm_interface import gemm_gated

    # "B": the gates' lines of W stand before the others, not each beside its own.
    how = {"activation": "swiglu", "store_preact": False, "tuned": False, "concat_layout": ("B",)}
    config = _config(wide)

    def multiply(x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor) -> None:
        gemm_gated(x, weight.t(), postact_out=y, config=config, **how)

    return multiply


def _config(wide: int) -> Any:
    from quack.gemm_config import GemmConfig

    rows, columns = CLUSTER
    return GemmConfig(
        tile_m=ROWS,
        tile_n=wide,
        pingpong=wide <= WIDEST_IN_TURNS,
        cluster_m=rows,
        cluster_n=columns,
        is_dynamic_persistent=False,
        device_capacity=HOPPER,
    )
