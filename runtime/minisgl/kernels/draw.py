"""A token per row of logits, by the inverse of the row's cumulative distribution: one number in [0, 1) for each row.

    weight = exp2((score - best) * log2(e) / temperature)      never above 1, so no temperature can overflow

    logits     [ chunk 0 | chunk 1 | chunk 2 | … ]     first kernel: each chunk's best score and its sum of weights
    sums       [ ....... , ....... , ....... , … ]     second kernel: the chunk in which the number falls, then the
                           [ . . . . . ]               token in it, whose logits are read again

Greedy rows go the same way with 1 for a weight where the score is the best and 0 elsewhere, and the number 0: the
first of the best. The number is a hash of (seed, position), the one that a CPU draws (`engine.sampler.uniform`), and
chunks are the same for any number of rows: a row's choice depends on nothing but its logits, their type (a GPU sums 16
bits in another order than 32), its parameters, seed and position, neither on its batch nor on its place there.

Floor: the logits once, rows * vocab * 2 bytes in bfloat16.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from minisgl.kernels.chain import await_earlier, chain

CHUNK = 4096  # tokens per program: 256 threads with 16 of them, two loads of 16 bytes where a logit has 16 bits

LOG2_E = tl.constexpr(1.4426950408889634)
STEEPEST = tl.constexpr(1e38)  # finite: what 0 is multiplied by

# SplitMix64's: what a counter is multiplied by, and the two products of its hash.
STEP = tl.constexpr(0x9E3779B97F4A7C15)
FIRST = tl.constexpr(0xBF58476D1CE4E5B9)
SECOND = tl.constexpr(0x94D049BB133111EB)

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))  # by numpy, which knows not all that a GPU does


@triton.jit  # type: ignore[untyped-decorator]
def _mix(z: tl.tensor) -> tl.tensor:
    z = (z ^ (z >> 30)) * FIRST
    z = (z ^ (z >> 27)) * SECOND
    return z ^ (z >> 31)


@triton.jit  # type: ignore[untyped-decorator]
def _uniform(seed: tl.tensor, position: tl.tensor) -> tl.tensor:
    """`engine.sampler.uniform`, bit for bit: SplitMix64's top 53 bits as float64 in [0, 1)."""
    z = _mix(seed.to(tl.uint64)) + (position.to(tl.uint64) + 1) * STEP
    return (_mix(z) >> 11).to(tl.float64) * 1.1102230246251565e-16


@triton.jit  # type: ignore[untyped-decorator]
def _weight(score: tl.tensor, best: tl.tensor, heat: tl.tensor) -> tl.tensor:
    return tl.exp2((score - best) * tl.minimum(LOG2_E / heat, STEEPEST))


@triton.jit  # type: ignore[untyped-decorator]
def _load(line: tl.tensor, token: tl.tensor, vocab: tl.constexpr) -> tl.tensor:
    """Scores float32 of some tokens in a row's logits."""
    return tl.load(line + token, mask=token < vocab, other=-float("inf")).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def _find(weight: tl.tensor, at: tl.tensor, share: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """The index among `at` (0, 1, …) of the weight where a share of their sum is reached, and the share of it.

    Sums are float64, so that what is unlikely keeps its proportion. Rounding leads to no weight that is 0.
    """
    weight = weight.to(tl.float64)
    running = tl.cumsum(weight, axis=0)
    point = share * tl.max(running, axis=0)
    last = tl.max(tl.where(weight > 0, at, 0), axis=0)
    found = tl.min(tl.where((running > point) & (weight > 0), at, last), axis=0)
    own = tl.sum(tl.where(at == found, weight, 0.0), axis=0)
    before = tl.sum(tl.where(at == found, running, 0.0), axis=0) - own
    return found, (point - before) / own


# Columns of one buffer: where a column begins must not lead to another compilation in the middle of work.
COLUMNS = ["temperature", "seeds", "positions", "owners"]


@triton.jit(do_not_specialize_on_alignment=COLUMNS)  # type: ignore[untyped-decorator]
def _weigh_chunk(
    logits: tl.tensor,
    stride: tl.tensor,
    temperature: tl.tensor,
    bests: tl.tensor,
    sums: tl.tensor,
    vocab: tl.constexpr,
    chunk: tl.constexpr,
    chained: tl.constexpr,
) -> None:
    at, row, chunks = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    await_earlier(chained)
    heat = tl.load(temperature + row)
    score = _load(logits + row.to(tl.int64) * stride, at * chunk + tl.arange(0, chunk), vocab)
    best = tl.max(score, axis=0)
    # Beside 0, nothing but -infinity weighs 0. NaN or infinity make the sum NaN: all that greedy rows need it for.
    total = tl.sum(_weight(score, tl.where(best == -float("inf"), 0.0, best), heat), axis=0)
    tl.store(bests + row * chunks + at, tl.where(total == total, best, float("inf")))
    tl.store(sums + row * chunks + at, total)


@triton.jit(do_not_specialize_on_alignment=COLUMNS)  # type: ignore[untyped-decorator]
def _draw_row(
    logits: tl.tensor,
    stride: tl.tensor,
    temperature: tl.tensor,
    seeds: tl.tensor,
    positions: tl.tensor,
    bests: tl.tensor,
    sums: tl.tensor,
    result: tl.tensor,
    last: tl.tensor,
    owners: tl.tensor,
    vocab: tl.constexpr,
    chunk: tl.constexpr,
    chunks: tl.constexpr,
    block: tl.constexpr,
    chained: tl.constexpr,
) -> None:
    row, rows, at = tl.program_id(0), tl.num_programs(0), tl.arange(0, block)
    await_earlier(chained)
    # All that is read first is asked for together: nothing else hides what a load takes.
    heat, owner = tl.load(temperature + row), tl.load(owners + row)
    number = _uniform(tl.load(seeds + row), tl.load(positions + row))
    peak = tl.load(bests + row * chunks + at, mask=at < chunks, other=-float("inf"))
    total = tl.load(sums + row * chunks + at, mask=at < chunks, other=0)
    best = tl.max(peak, axis=0)
    failed = tl.abs(best) == float("inf")
    random = (heat > 0) & (failed == 0)
    weight = tl.where(random, total * _weight(peak, best, heat), (peak == best).to(tl.float32))
    found, share = _find(weight, at, tl.where(random, number, 0.0))
    peak = tl.max(tl.where(at == found, peak, -float("inf")), axis=0)

    inner = tl.arange(0, chunk)
    score = _load(logits + row.to(tl.int64) * stride, found * chunk + inner, vocab)
    score = tl.where(score == score, score, float("inf"))  # a failed row's token is any that has an embedding
    weight = tl.where(random, _weight(score, peak, heat), (score == peak).to(tl.float32))
    inner, _ = _find(weight, inner, share)
    token = found * chunk + inner
    tl.store(result + row, token)
    tl.store(result + rows + row, failed.to(tl.int32))
    tl.store(last + owner, token.to(tl.int64))


def draw(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    seeds: torch.Tensor,
    positions: torch.Tensor,
    last: torch.Tensor,
    owners: torch.Tensor,
) -> torch.Tensor:
    """Choose one token per row of `logits` [rows, vocab], and write it to `last` int64 at the places `owners`.

    temperature float32, seeds and positions int64 (of the new token), owners int64, all [rows] and contiguous; logits
    float32, bfloat16 or float16, each row contiguous. Returns int32 [2, rows]: the tokens, and 1 where NaN or infinity
    stood among the logits (or nothing but -infinity), so that the token means nothing.
    """
    rows, vocab = logits.shape
    chunks = triton.cdiv(vocab, CHUNK)
    bests, sums = (torch.empty(rows, chunks, dtype=torch.float32, device=logits.device) for _ in range(2))
    result = torch.empty(2, rows, dtype=torch.int32, device=logits.device)
    given = logits, logits.stride(0), temperature
    chained = chain(logits.device)
    _weigh_chunk[(chunks, rows)](*given, bests, sums, vocab, CHUNK, num_warps=8, **chained)
    _draw_row[(rows,)](
        *(*given, seeds, positions, bests, sums, result, last, owners),
        *(vocab, CHUNK, chunks, triton.next_power_of_2(chunks)),
        num_warps=8,
        **chained,
    )
    return result


def draw_twin(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    seeds: torch.Tensor,
    positions: torch.Tensor,
    last: torch.Tensor,
    owners: torch.Tensor,
) -> torch.Tensor:
    """The same in plain torch, on any device."""
    cumulative, failed = twin_cumulative(logits, temperature)
    point = uniform_twin(seeds, positions).unsqueeze(1) * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, point, right=True).squeeze(1)
    last[owners] = tokens
    return torch.stack((tokens.int(), failed.int()))


def twin_cumulative(logits: torch.Tensor, temperature: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Running sums of weights float64 [rows, vocab], and which rows failed; all weight on one token where none is
    drawn.
    """
    scores = logits.float().nan_to_num(float("inf"), float("inf"), float("-inf"))
    best, first = scores.max(dim=1, keepdim=True)  # the first of the best
    failed = best.isinf()
    heat = temperature.unsqueeze(1)
    weights = ((scores - best) * (LOG2_E.value / heat).clamp_(max=STEEPEST.value)).exp2_()
    alone = torch.zeros_like(weights).scatter_(1, first, 1.0)
    return torch.where(failed | (heat <= 0), alone, weights).cumsum(1, dtype=torch.float64), failed.squeeze(1)


def uniform_twin(seeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """A number float64 in [0, 1) for each seed and position: unsigned arithmetic in int64, which wraps as well."""

    def right(z: torch.Tensor, bits: int) -> torch.Tensor:
        return (z >> bits) & ((1 << 64 - bits) - 1)

    def mix(z: torch.Tensor) -> torch.Tensor:
        z = (z ^ right(z, 30)) * first
        z = (z ^ right(z, 27)) * second
        return z ^ right(z, 31)

    step, first, second = (multiplier.value - 2**64 for multiplier in (STEP, FIRST, SECOND))
    return right(mix(mix(seeds) + (positions + 1) * step), 11).double() * 2.0**-53
