"""y = x W^T in the rows of captured steps: by quack's kernels where their rule says so (`kernels.tiled`), else by the
fastest of cuBLASLt's ways that give the very bits of the one that torch takes.

Each is chosen once, while its step is not captured yet; elsewhere a product is torch's. Of cuBLASLt, large products
only: on an H200, torch's first choice is 3 to 12% behind for some of them, and the best for most.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch.nn import functional

from minisgl.kernels import lt, tiled

log = logging.getLogger(__name__)

LEAST_OPERATIONS = 10e9  # a shorter product is over before the next one can be launched, so it cannot be measured
LEAST_GAIN = 1.02  # times as fast as torch's: less is noise
ROUNDS, ROUND_SECONDS, OPERATIONS_PER_SECOND = 3, 0.0004, 600e12
ERROR, CHECKED_ROWS = 1e-2, 128  # relative, of a way that rounds elsewhere; and in how many rows that is looked at


class Key(NamedTuple):
    """A product that was chosen."""

    rows: int
    outs: int
    ins: int
    dtype: torch.dtype
    gated: bool


_chosen: dict[Key, tiled.Multiply | None] = {}
_choosing = False


@contextmanager
def choosing() -> Iterator[None]:
    """While products are measured that have not been before; nothing may be captured meanwhile."""
    global _choosing  # a phase of the process's start, as its graphs are
    _choosing = True
    try:
        yield
    finally:
        _choosing = False


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`functional.linear` on a GPU in 16 bits."""
    multiply = _find(x, weight, bias, gated=False)
    if multiply is None:
        return functional.linear(x, weight, bias)
    y = x.new_empty(len(x), len(weight))
    multiply(x, weight, y)
    return y


def gated(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor | None:
    """silu(gate) * up [rows, out / 2] of the product's two halves; None where no kernel gives it at once."""
    multiply = _find(x, weight, bias, gated=True)
    if multiply is None:
        return None
    y = x.new_empty(len(x), len(weight) // 2)
    multiply(x, weight, y)
    return y


def _find(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *, gated: bool) -> tiled.Multiply | None:
    key = Key(len(x), len(weight), weight.shape[1], weight.dtype, gated)
    can = bias is None and x.is_contiguous() and weight.is_contiguous()
    if _choosing and key not in _chosen:
        _chosen[key] = _choose(x, weight, gated=gated) if can else None
    return _chosen.get(key) if can else None


def _choose(x: torch.Tensor, weight: torch.Tensor, *, gated: bool) -> tiled.Multiply | None:
    return _tiled(x, weight, gated=gated) or (None if gated else _fastest_way(x, weight))


def _tiled(x: torch.Tensor, weight: torch.Tensor, *, gated: bool) -> tiled.Multiply | None:
    """quack's way where it pays, once it has given what torch gives."""
    try:
        if (multiply := tiled.way(len(x), weight, gated=gated)) is None:
            return None
        y = x.new_full((len(x), len(weight) // (2 if gated else 1)), torch.nan)
        multiply(x, weight, y)
    except Exception as error:  # whatever a young library raises, in another version than we know
        log.warning("products are not tiled: %s: %s", type(error).__name__, error)
        return None
    expected = functional.linear(x[:CHECKED_ROWS], weight)
    if gated:
        gate, up = expected.chunk(2, dim=-1)
        expected = functional.silu(gate).mul_(up)
    wrong = (y[:CHECKED_ROWS] - expected).float().norm() / expected.float().norm().clamp(min=1e-30)
    if not (float(wrong) < ERROR and bool(torch.isfinite(y).all())):
        log.warning("products are not tiled: %d x %d x %d is off by %.1e", len(x), *weight.shape, float(wrong))
        return None
    return multiply


def _fastest_way(x: torch.Tensor, weight: torch.Tensor) -> lt.Multiply | None:
    operations = 2 * len(x) * weight.numel()
    if operations < LEAST_OPERATIONS:
        return None
    expected = functional.linear(x, weight)
    y = torch.empty_like(expected)

    def is_equal(multiply: lt.Multiply) -> bool:
        y.fill_(torch.nan)
        try:
            multiply(x, weight, y)
        except RuntimeError:  # proposed, and then refused
            return False
        return torch.equal(y, expected)

    try:
        candidates = [multiply for multiply in lt.ways(len(x), weight) if is_equal(multiply)]
    except (OSError, AttributeError, RuntimeError) as error:
        log.warning("products are not tuned: %s", error)  # another cuBLASLt than we know: torch's own serves
        return None
    repeats = max(1, int(ROUND_SECONDS * OPERATIONS_PER_SECOND / operations))

    def milliseconds(run: Callable[[], object]) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        for _ in range(repeats):
            run()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))

    runs: list[Callable[[], object]] = [lambda: functional.linear(x, weight)]
    runs += [lambda multiply=multiply: multiply(x, weight, y) for multiply in candidates]  # type: ignore[misc]
    # In turns: the clock falls while it is hot.
    times = [[milliseconds(run) for run in runs] for _ in range(ROUNDS)]
    best = fastest([statistics.median(column) for column in zip(*times, strict=True)])
    return candidates[best - 1] if best else None


def fastest(times: Sequence[float]) -> int:
    """The index of the best; of the first, torch's own, where none is clearly better."""
    best = min(range(len(times)), key=lambda i: times[i])
    return best if times[0] >= LEAST_GAIN * times[best] else 0
