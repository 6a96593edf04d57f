"""Kernels that come to the device while the one before them ends: programmatic dependent launch, on Hopper and newer.

    plain      [ kernel 1 ........ ] gap [ kernel 2 ........ ]
    chained    [ kernel 1 ........ ]
                   [ begin, wait .. ][ kernel 2 ........ ]

A chained kernel calls `await_earlier` before it touches what any earlier kernel wrote or still reads: then all of them
are done, and their writes are seen. What nobody writes (weights) may be read before.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit  # type: ignore[untyped-decorator]
def await_earlier(chained: tl.constexpr) -> None:
    """Wait for the kernels before, and let the next one come."""
    if chained:
        gdc_wait()
        gdc_launch_dependents()


@cache
def chain(device: torch.device) -> dict[str, Any]:
    """The arguments of a chained kernel's launch."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0):
        return {"chained": True, "launch_pdl": True}
    return {"chained": False}
