"""Logits to tokens. Every row for itself: a row's token depends on its logits, its parameters, its seed and its
position, never on the rows beside it.

Randomness is counter-based: one number in [0, 1) per (seed, position), then the inverse of the row's cumulative
distribution. So a request that is preempted, or runs in another batch, draws the same numbers again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from minisgl.engine.batch import Batch


class Sampled(NamedTuple):
    """One token per row; where `failed`, the row's logits were NaN or infinite and the token means nothing."""

    tokens: NDArray[np.int32]
    failed: NDArray[np.bool_]


def sample(logits: torch.Tensor, batch: Batch) -> Sampled:
    """Choose one token per row of `logits` [sampled, vocab]."""
    best, tokens = logits.max(dim=-1)  # max of a row with a NaN is NaN
    failed = ~torch.isfinite(best)
    if (random := np.flatnonzero(batch.temperature > 0)).size:
        rows = torch.from_numpy(random).to(logits.device)
        tokens[rows] = _draw(logits, best, rows, random, batch)
    return Sampled(tokens.to("cpu", torch.int32).numpy(), failed.cpu().numpy())


def _draw(
    logits: torch.Tensor, best: torch.Tensor, rows: torch.Tensor, random: NDArray[np.intp], batch: Batch
) -> torch.Tensor:
    """Draw for the rows `random` of the batch (`rows` on the device)."""

    def column(values: NDArray[np.float32] | NDArray[np.float64] | NDArray[np.int32]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(logits.device).unsqueeze(1)

    # The best logit becomes 0 before it is divided: no temperature, however small, can overflow.
    scores = (logits[rows].float() - best[rows].float().unsqueeze(1)) / column(batch.temperature[random])
    top_k, top_p, min_p = batch.top_k[random], batch.top_p[random], batch.min_p[random]
    order: torch.Tensor | None = None
    if (top_k > 0).any() or (top_p < 1).any():
        scores, order = scores.sort(dim=-1, descending=True, stable=True)
        if (top_k > 0).any():
            rank = torch.arange(scores.shape[1], device=scores.device)
            limit = column(np.where(top_k > 0, top_k, scores.shape[1]).astype(np.int32))
            scores = scores.masked_fill(rank >= limit, float("-inf"))
    probs = scores.softmax(dim=-1)
    if order is not None and (top_p < 1).any():
        # Keep a token while those before it have less than top_p together: the first one always stays.
        before = probs.cumsum(dim=-1) - probs
        probs = probs.masked_fill(before >= column(top_p), 0)
    if (min_p > 0).any():
        probs = probs.masked_fill(probs < column(min_p) * probs.amax(dim=-1, keepdim=True), 0)

    cumulative = probs.cumsum(dim=-1, dtype=torch.float64)
    at = (batch.starts + batch.counts)[batch.sampled][random]
    point = column(uniform(batch.seeds[random], at)) * cumulative[:, -1:]
    # The first token whose cumulative probability exceeds the point, so never one of probability zero.
    picked = torch.searchsorted(cumulative, point, right=True).clamp_(max=probs.shape[1] - 1)
    return (picked if order is None else order.gather(1, picked)).squeeze(1)


def uniform(seeds: NDArray[np.uint64], counters: NDArray[np.int32]) -> NDArray[np.float64]:
    """One number in [0, 1) for each (seed, counter): SplitMix64 (Steele, Lea, Flood 2014), its top 53 bits."""
    z = _mix(seeds) + (counters.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return (_mix(z) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
