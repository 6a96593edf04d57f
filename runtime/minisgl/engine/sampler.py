"""Logits to tokens. Every row for itself: a row's token depends on its logits, its parameters, its seed and its
position, never on the rows beside it.

Randomness is counter-based: one number in [0, 1) per (seed, position), then the inverse of the row's cumulative
distribution. So a request that is preempted, or runs in another batch, draws the same numbers again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from minisgl.engine import penalties
from minisgl.engine.batch import Extras, Sampled, Sampling
from minisgl.messages import Logprobs


@dataclass(frozen=True)
class Drawn:
    """The choice, still on the device: `tokens` int64 and `failed` bool [sampled].

    `logprobs` of those that asked: the chosen token's, then the likeliest tokens' and these tokens, [asking, …].
    """

    tokens: torch.Tensor
    failed: torch.Tensor
    extras: Extras | None = None
    logprobs: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def send_home(self) -> Callable[[], Sampled]:
        """Start the copy to the host; the result waits for it, and for no step that is launched later."""
        tensors = [self.tokens.int(), self.failed, *(self.logprobs or ())]
        event = None
        if self.tokens.is_cuda:
            tensors = [
                torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True) for x in tensors
            ]
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()

        def result() -> Sampled:
            if event is not None:
                event.synchronize()
            tokens, failed, *asked = (x.numpy() for x in tensors)
            return Sampled(tokens, failed, _report(self.extras, tokens, *asked) if self.extras and asked else {})

        return result


def sample(logits: torch.Tensor, sampling: Sampling, last: torch.Tensor) -> Drawn:
    """Choose one token per row of `logits` [sampled, vocab]; `last` [sampled] are the tokens before them."""
    best, tokens = logits.max(dim=-1)  # max of a row with a NaN is NaN
    failed = ~torch.isfinite(best)
    extras = sampling.extras
    if extras is not None:
        logits = logits.to(torch.float32, copy=True)
        penalties.apply(logits, extras, last)
        best, tokens = logits.max(dim=-1)
    if (random := np.flatnonzero(sampling.temperature > 0)).size:
        rows = torch.from_numpy(random).to(logits.device)
        tokens[rows] = _draw(logits, best, rows, random, sampling)
    asked = _logprobs(logits, tokens, extras) if extras is not None and len(extras.logprobs_at) else None
    return Drawn(tokens, failed, extras, asked)


def _logprobs(
    logits: torch.Tensor, tokens: torch.Tensor, extras: Extras
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    at = torch.from_numpy(extras.logprobs_at).to(logits.device)
    logprobs = logits[at].log_softmax(dim=-1)
    chosen = logprobs.gather(1, tokens[at].unsqueeze(1))
    return chosen, *logprobs.topk(min(int(extras.num_top.max()), logprobs.shape[1]), dim=-1)


def _report(
    extras: Extras,
    tokens: NDArray[np.int32],
    chosen: NDArray[np.float32],
    top: NDArray[np.float32],
    top_tokens: NDArray[np.int64],
) -> dict[int, Logprobs]:
    reports = {}
    for i, (at, count) in enumerate(zip(extras.logprobs_at.tolist(), extras.num_top.tolist(), strict=True)):
        likeliest = zip(top_tokens[i, :count].tolist(), top[i, :count].tolist(), strict=True)
        reports[at] = Logprobs(int(tokens[at]), float(chosen[i, 0]), tuple(likeliest))
    return reports


def _draw(
    logits: torch.Tensor, best: torch.Tensor, rows: torch.Tensor, random: NDArray[np.intp], sampling: Sampling
) -> torch.Tensor:
    """Draw for the rows `random` of the batch (`rows` on the device)."""

    def column(values: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(logits.device).unsqueeze(1)

    # The best logit becomes 0 before it is divided: no temperature, however small, can overflow.
    scores = (logits[rows].float() - best[rows].float().unsqueeze(1)) / column(sampling.temperature[random])
    asking = (sampling.top_k[random] > 0) | (sampling.top_p[random] < 1)
    if asking.any():
        which = torch.from_numpy(np.flatnonzero(asking)).to(logits.device)
        top_k, top_p = sampling.top_k[random][asking], sampling.top_p[random][asking]
        scores[which] = _keep_top(scores[which], column(np.where(top_k > 0, top_k, scores.shape[1])), column(top_p))
    probs = scores.softmax(dim=-1)
    if ((min_p := sampling.min_p[random]) > 0).any():
        probs = probs.masked_fill(probs < column(min_p) * probs.amax(dim=-1, keepdim=True), 0)

    cumulative = probs.cumsum(dim=-1, dtype=torch.float64)
    point = column(uniform(sampling.seeds[random], sampling.positions[random])) * cumulative[:, -1:]
    # The first token whose cumulative probability exceeds the point, so never one of probability zero.
    return torch.searchsorted(cumulative, point, right=True).clamp_(max=probs.shape[1] - 1).squeeze(1)


def _keep_top(scores: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Rule out what is not among the `top_k` best, then not in the smallest set with probability `top_p`.

    The result is in vocabulary order again: a row must draw from the same line whether or not its neighbours sort.
    """
    ranked, order = scores.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(scores.shape[1], device=scores.device)
    ranked = ranked.masked_fill(rank >= top_k, float("-inf"))
    probs = ranked.softmax(dim=-1)
    # Keep a token while those before it have less than top_p together: the first one always stays.
    ranked = ranked.masked_fill((probs.cumsum(dim=-1) - probs >= top_p) & (rank > 0), float("-inf"))
    return torch.empty_like(scores).scatter_(1, order, ranked)


def uniform(seeds: NDArray[np.uint64], counters: NDArray[np.int32]) -> NDArray[np.float64]:
    """One number in [0, 1) for each (seed, counter): SplitMix64 (Steele, Lea, Flood 2014), its top 53 bits."""
    z = _mix(seeds) + (counters.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return (_mix(z) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
