"""Logits to tokens. Every row for itself: a row's token depends on its logits, its parameters, its seed and its
position, never on the rows beside it.

Randomness is counter-based: one number in [0, 1) per (seed, position), then the inverse of the row's cumulative
distribution. So a request that is preempted, or runs in another batch, draws the same numbers again.

On a GPU the draw is `kernels.draw`, one pass that needs no distribution: for all rows as they are, then once more for
those whose logits must be changed first. The same seed gives other tokens there than on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from minisgl.engine import penalties
from minisgl.engine.batch import Extras, Sampled, Sampling
from minisgl.messages import Logprobs


@dataclass(frozen=True)
class Drawn:
    """The choice, still on the device: `chosen` int32 [2, sampled] are the tokens, and 1 for those that failed; what a
    graph drew for padding may follow in each line.

    `logprobs` of those that asked: the chosen token's, then the likeliest tokens' and these tokens, [asking, …].
    """

    chosen: torch.Tensor
    sampled: int
    extras: Extras | None = None
    logprobs: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def send_home(self) -> Callable[[], Sampled]:
        """Start the copy to the host; the result waits for it, and for no step that is launched later."""
        tensors = [self.chosen, *(self.logprobs or ())]
        event = None
        if self.chosen.is_cuda:
            tensors = [
                torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True) for x in tensors
            ]
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()

        def result() -> Sampled:
            if event is not None:
                event.synchronize()
            chosen, *asked = (x.numpy() for x in tensors)
            tokens, failed = chosen[:, : self.sampled]
            return Sampled(tokens, failed != 0, _report(self.extras, tokens, *asked) if self.extras and asked else {})

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
    return Drawn(torch.stack((tokens.int(), failed.int())), len(tokens), extras, asked)


def draw_plainly(logits: torch.Tensor, sampling: Sampling, rows: NDArray[np.int32], last: torch.Tensor) -> torch.Tensor:
    """On a GPU: a token for each row of `logits` [sampled, vocab] at its temperature, written to `last[rows]` as well.

    Returns int32 [2, sampled]: tokens, and which rows failed.
    """
    from minisgl.kernels.draw import draw

    count = len(rows)
    host = torch.empty(4, count, dtype=torch.int64, pin_memory=logits.is_cuda)
    values = host.numpy()
    values[0], values[1], values[2] = rows, sampling.positions, sampling.seeds.view(np.int64)
    values[3].view(np.float32)[:count] = sampling.temperature
    owners, positions, seeds, packed = host.to(logits.device, non_blocking=True)
    return draw(logits, packed.view(torch.float32)[:count], seeds, positions, last, owners)


def draw_again(
    plain: torch.Tensor,
    logits: torch.Tensor,
    sampling: Sampling,
    rows: NDArray[np.int32],
    last: torch.Tensor,
    before: torch.Tensor | None,
) -> Drawn:
    """On a GPU: what `draw_plainly` gave, but for the rows that ask for more, which are drawn from changed logits.

    `plain` is as wide as what was drawn, padding included: cut, it would be copied on the device before it goes home.
    `before`: the tokens [sampled] before the drawn ones, needed where there are extras.
    """
    who = _asking(sampling)
    extras, asked = sampling.extras, None
    if who.size:
        part = _pick(sampling, who)
        at = torch.from_numpy(who).to(logits.device)
        scores = logits[at].float()
        if part.extras is not None and before is not None:
            penalties.apply(scores, part.extras, before[at])
        changed = scores
        if (random := np.flatnonzero(part.temperature > 0)).size:
            chosen = torch.from_numpy(random).to(logits.device)
            probs = _probs(scores, scores.amax(dim=-1), chosen, random, part)
            changed = scores.clone()
            changed[chosen] = changed[chosen].masked_fill_(probs == 0, float("-inf"))
        tokens = draw_plainly(changed, part, rows[who], last)[0]
        plain[0, at] = tokens
        if part.extras is not None and len(part.extras.logprobs_at):
            asked = _logprobs(scores, tokens.long(), part.extras)
    return Drawn(plain, len(rows), extras, asked)


def _asking(sampling: Sampling) -> NDArray[np.intp]:
    """Rows that one pass over their logits as they are does not serve."""
    asks = (sampling.top_k > 0) | (sampling.top_p < 1) | (sampling.min_p > 0)
    asks &= sampling.temperature > 0
    if (extras := sampling.extras) is not None:
        for at in (extras.penalised_at, extras.bias_at, extras.logprobs_at, extras.held_at):
            asks[at] = True
    return np.flatnonzero(asks)


def _pick(sampling: Sampling, who: NDArray[np.intp]) -> Sampling:
    """The part of the rows `who`, ascending, among them all that have extras."""
    extras = sampling.extras
    if extras is not None:
        extras = replace(
            extras,
            penalised_at=np.searchsorted(who, extras.penalised_at),
            bias_at=np.searchsorted(who, extras.bias_at),
            logprobs_at=np.searchsorted(who, extras.logprobs_at),
            held_at=np.searchsorted(who, extras.held_at),
        )
    columns = ("temperature", "top_k", "top_p", "min_p", "seeds", "positions")
    return Sampling(**{name: getattr(sampling, name)[who] for name in columns}, extras=extras)


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
    cumulative = _probs(logits, best, rows, random, sampling).cumsum(dim=-1, dtype=torch.float64)
    point = _column(uniform(sampling.seeds[random], sampling.positions[random]), logits) * cumulative[:, -1:]
    # The first token whose cumulative probability exceeds the point, so never one of probability zero.
    return torch.searchsorted(cumulative, point, right=True).clamp_(max=logits.shape[1] - 1).squeeze(1)


def _probs(
    logits: torch.Tensor, best: torch.Tensor, rows: torch.Tensor, random: NDArray[np.intp], sampling: Sampling
) -> torch.Tensor:
    """The distributions that the rows `random` are drawn from (min_p leaves less than 1 in all)."""

    def column(values: NDArray[Any]) -> torch.Tensor:
        return _column(values, logits)

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
    return probs


def _column(values: NDArray[Any], like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(like.device).unsqueeze(1)


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
