"""y = x W^T by the fastest of cuBLASLt's ways that give the very bits of the one that torch takes.

Large products only, and only for the rows of captured steps: there each is measured once, while it is not captured yet.
On an H200, torch's first choice is 3 to 12% behind for some of them, and the best for most.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.nn import functional

from minisgl.kernels import lt

log = logging.getLogger(__name__)

LEAST_OPERATIONS = 10e9  # a shorter product is over before the next one can be launched, so it cannot be measured
LEAST_GAIN = 1.02  # times as fast as torch's: less is noise
ROUNDS, ROUND_SECONDS, OPERATIONS_PER_SECOND = 3, 0.0004, 600e12

_chosen: dict[tuple[int, int, int, torch.dtype], lt.Multiply | None] = {}
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
    """`functional.linear` on a GPU in 16 bits; the same bits."""
    key = len(x), *weight.shape, weight.dtype
    if _choosing and key not in _chosen:
        _chosen[key] = _choose(x, weight) if bias is None else None
    multiply = _chosen.get(key)
    if multiply is None or bias is not None or not x.is_contiguous():
        return functional.linear(x, weight, bias)
    y = x.new_empty(len(x), len(weight))
    multiply(x, weight, y)
    return y


def _choose(x: torch.Tensor, weight: torch.Tensor) -> lt.Multiply | None:
    operations = 2 * len(x) * weight.numel()
    if operations < LEAST_OPERATIONS or not (x.is_contiguous() and weight.is_contiguous()):
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
