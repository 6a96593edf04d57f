"""y = x W^T + b on one CPU thread: `product.c`. In bfloat16 twice as fast as oneDNN at a few rows."""

from __future__ import annotations

import torch

from minisgl.kernels import native

LANES = 16  # outputs in a vector, as in product.c


class Product:
    """W [out, in], laid out for the CPU's vectors; the plain weight is not needed any more."""

    def __init__(self, weight: torch.Tensor) -> None:
        """`weight`: contiguous, one that `serves` accepts."""
        library, suffix = native.library(), native.SUFFIXES[weight.dtype]
        self.size, self._in_size = weight.shape
        self._packed = weight.new_empty(-(-self.size // LANES) * LANES * self._in_size)
        getattr(library, f"pack_{suffix}")(weight.data_ptr(), self.size, self._in_size, self._packed.data_ptr())
        self._weights, self._multiply = self._packed.data_ptr(), getattr(library, f"multiply_{suffix}")

    def __call__(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """y [rows, out] of x [rows, in], whose rows are contiguous each; sums are in float32, y is rounded once."""
        rows = len(x)
        y = x.new_empty(rows, self.size)
        add = None if bias is None else bias.data_ptr()
        self._multiply(x.data_ptr(), rows, x.stride(0), self._weights, add, self.size, self._in_size, y.data_ptr())
        return y


def serves(weight: torch.Tensor) -> bool:
    """Whether this machine multiplies such a weight by `Product`."""
    suffix = native.SUFFIXES.get(weight.dtype)
    if weight.device.type != "cpu" or suffix is None or not native.is_usable():
        return False
    has_pairs = weight.dtype != torch.bfloat16 or weight.shape[1] % 2 == 0
    return has_pairs and bool(getattr(native.library(), f"can_multiply_{suffix}")())
