"""Weights: where they lie in a checkpoint, and the layout in which they are multiplied.

A checkpoint's tensor, or a rank's part of it, is copied into a slot; several slots may be views of one fused weight.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple, cast

import torch
from torch.nn import functional

from minisgl.distributed.group import Group
from minisgl.kernels import product
from minisgl.kernels.product import Product

# The number of rows that oneDNN's layout is chosen for. One for 8 serves 1 to 512 rows about as well as their own,
# while one for a single row makes 8 rows twice as slow.
TYPICAL_ROWS = 8


Multiply = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]  # x, W and b
Packed = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]  # x and b; W is in it


class Place(NamedTuple):
    """Where a layer lives: its rank among those that share the model, the type of its weights, its device."""

    group: Group
    dtype: torch.dtype
    device: str

    def empty(self, *shape: int) -> torch.Tensor:
        """Memory for weights that a checkpoint will fill."""
        return torch.empty(*shape, dtype=self.dtype, device=self.device)

    @property
    def fuses(self) -> bool:
        """Whether `minisgl.kernels` serve here: on a GPU, in 16 bits."""
        return self.device != "cpu" and self.dtype != torch.float32


class Slot(NamedTuple):
    """Copy the checkpoint's tensor `name`, from `start` along `dim`, into `target`, as much as fits."""

    name: str
    target: torch.Tensor
    dim: int = 0
    start: int = 0


class Weighted:
    """A layer with weights of its own. `slots` are to be filled once, then `loaded` is called."""

    slots: list[Slot]

    def loaded(self) -> int:
        """Let go of the slots, which hold on to memory, and prepare for speed; returns the bytes that this adds."""
        self.slots = []
        return 0


class Matrix:
    """W [out, in] of y = x W^T + b."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight
        self._packed: Packed | None = None
        # On a GPU, up to so many rows are multiplied by a kernel of their own.
        self._few, self._multiply_few = -1, cast("Multiply", functional.linear)
        self._multiply_many = cast("Multiply", functional.linear)
        self._gated: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor | None] | None = None

    def __call__(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        if self._packed is not None:
            return self._packed(x, bias)
        multiply = self._multiply_few if 0 < len(x) <= self._few else self._multiply_many
        return multiply(x, self.weight, bias)

    def gated(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor | None:
        """silu(gate) * up [rows, out / 2] of the product's halves; None: no kernel gives it at once."""
        return None if self._gated is None else self._gated(x, self.weight, bias)

    def pack(self, *, keep: bool = False) -> int:
        """Take the layout that this CPU multiplies fastest, where there is one; `keep` the plain weight as well. On a
        GPU, take the ways for few rows and for captured steps.

        Measured on Zen 5, one thread, float32 [3072, 576]: 1 row 0.44 ms plain, 0.21 by oneDNN, 0.18 by ours; 8 rows
        1.02, 0.29, 0.20.
        Returns the bytes by which memory grew.
        """
        if self.weight.is_cuda and self.weight.dtype != torch.float32:
            from minisgl.kernels import tuned
            from minisgl.kernels.skinny import MOST_ROWS, few_rows

            self._few, self._multiply_few, self._multiply_many = MOST_ROWS, few_rows, tuned.linear
            self._gated = tuned.gated
            return 0
        if self.weight.device.type != "cpu":
            return 0
        if product.serves(self.weight):
            self._packed = Product(self.weight)
        elif _can_pack(self.weight.dtype):
            self._packed = _of_onednn(self.weight)
        else:
            return 0
        if keep:
            return self.weight.nbytes
        self.weight = self.weight.new_empty(0)
        return 0


def _of_onednn(weight: torch.Tensor) -> Packed:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL_ROWS)

    def multiply(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        y: torch.Tensor = _multiply(x, packed, bias, "none", [], "")
        return y

    return multiply


_multiply = torch.ops.mkldnn._linear_pointwise.default


@cache
def _can_pack(dtype: torch.dtype) -> bool:
    """Try it: these operators are made for torch's compiler, and not every CPU has them for every type."""
    x = torch.ones(2, 16, dtype=dtype)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(x, TYPICAL_ROWS)
        y = _multiply(x, packed, None, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool((y == 16).all())
