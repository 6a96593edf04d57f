"""A token per row of logits in one pass, by Gumbel-max (Gumbel 1954); greedy rows in the same kernel.

    score = logit + temperature * gumbel(seed, position, token)      the highest score is the choice

This draws from softmax(logit / temperature) without a sum over the vocabulary, cannot overflow however small the
temperature is, and is the plain maximum at 0. The noise is a hash of (seed, position, token): a row's choice depends on
nothing else, neither its batch nor how the vocabulary is cut.

    logits     [ chunk 0 | chunk 1 | chunk 2 | … ]     first kernel: the best score of each chunk, and its token
    bests      [ ....... , ....... , ....... , … ]     second kernel: the best chunk; ties go to the lowest token

Floor: the logits once, rows * vocab * 2 bytes in bfloat16.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from minisgl.kernels.chain import await_earlier, chain

# Tokens per program. A few rows spread over the whole GPU; many rows have programs enough.
FEW_ROWS, SMALL_CHUNK, LARGE_CHUNK = 8, 1024, 4096

MASK = 0xFFFFFFFF

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))  # by numpy, which knows no assembly


@triton.jit  # type: ignore[untyped-decorator]
def _log2(x: tl.tensor) -> tl.tensor:
    """One instruction, exact to 2^-22; the library's has 20 of them, which would double the kernel's time."""
    if INTERPRETED:
        return tl.log2(x)
    return tl.inline_asm_elementwise("lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit  # type: ignore[untyped-decorator]
def _mix(x: tl.tensor) -> tl.tensor:
    """A 32-bit hash with full avalanche ("lowbias32", Wellons 2018)."""
    x ^= x >> 16
    x *= 0x7FEB352D
    x ^= x >> 15
    x *= 0x846CA68B
    return x ^ (x >> 16)


@triton.jit  # type: ignore[untyped-decorator]
def _gumbel(first: tl.tensor, second: tl.tensor, token: tl.tensor) -> tl.tensor:
    """Noise of a row's tokens: the hash above, with half of the row's key before it and half within."""
    x = token.to(tl.uint32) ^ first
    x ^= x >> 16
    x *= 0x7FEB352D
    x ^= second
    x ^= x >> 15
    x *= 0x846CA68B
    x ^= x >> 16
    # In (0, 1), and finite below: 2^-33 to 1 - 2^-24.
    point = tl.minimum(x.to(tl.float32) * 2.3283064365386963e-10 + 1.1641532182693481e-10, 0.99999994)
    # -log(1 - point). Near 0, where the winners are, 1 - point has too few bits.
    wait = tl.where(
        point < 0.015625,
        point * (1.0 + point * (0.5 + point * (0.33333334 + point * 0.25))),
        -0.6931472 * _log2(1.0 - point),
    )
    return -0.6931472 * _log2(wait)


# Columns of one buffer: where a column begins must not lead to another compilation in the middle of work.
COLUMNS = ["temperature", "seeds", "positions", "owners"]


@triton.jit(do_not_specialize_on_alignment=COLUMNS)  # type: ignore[untyped-decorator]
def _best_of_chunk(
    logits: tl.tensor,
    stride: tl.tensor,
    temperature: tl.tensor,
    seeds: tl.tensor,
    positions: tl.tensor,
    bests: tl.tensor,
    tokens: tl.tensor,
    vocab: tl.constexpr,
    chunk: tl.constexpr,
    chained: tl.constexpr,
) -> None:
    at, row, chunks = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    token = at * chunk + tl.arange(0, chunk)
    inside = token < vocab
    await_earlier(chained)
    score = tl.load(logits + row.to(tl.int64) * stride + token, mask=inside, other=-float("inf")).to(tl.float32)
    score = tl.where(score == score, score, float("inf"))  # NaN as infinity: both win, and tell that the row failed
    heat = tl.load(temperature + row)
    if heat > 0:
        seed, position = tl.load(seeds + row), tl.load(positions + row)
        low, high = (seed & 0xFFFFFFFF).to(tl.uint32), ((seed >> 32) & 0xFFFFFFFF).to(tl.uint32)
        first = _mix(_mix((position & 0xFFFFFFFF).to(tl.uint32) + 0x9E3779B9) ^ low)
        second = _mix(first ^ high)
        score += heat * _gumbel(first, second, token)
    best = tl.max(score, axis=0)
    tl.store(bests + row * chunks + at, best)
    tl.store(tokens + row * chunks + at, tl.min(tl.where(score == best, token, vocab), axis=0))


@triton.jit(do_not_specialize_on_alignment=COLUMNS)  # type: ignore[untyped-decorator]
def _best_of_row(
    bests: tl.tensor,
    tokens: tl.tensor,
    result: tl.tensor,
    last: tl.tensor,
    owners: tl.tensor,
    chunks: tl.constexpr,
    block: tl.constexpr,
    chained: tl.constexpr,
) -> None:
    row, rows, at = tl.program_id(0), tl.num_programs(0), tl.arange(0, block)
    inside = at < chunks
    await_earlier(chained)
    score = tl.load(bests + row * chunks + at, mask=inside, other=-float("inf"))
    best = tl.max(score, axis=0)
    token = tl.load(tokens + row * chunks + tl.min(tl.where(score == best, at, chunks), axis=0))
    tl.store(result + row, token)
    tl.store(result + rows + row, (tl.abs(best) == float("inf")).to(tl.int32))
    tl.store(last + tl.load(owners + row), token.to(tl.int64))


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
    chunk = SMALL_CHUNK if rows <= FEW_ROWS else LARGE_CHUNK
    chunks = triton.cdiv(vocab, chunk)
    bests = torch.empty(rows, chunks, dtype=torch.float32, device=logits.device)
    tokens = torch.empty(rows, chunks, dtype=torch.int32, device=logits.device)
    result = torch.empty(2, rows, dtype=torch.int32, device=logits.device)
    arguments = temperature, seeds, positions, bests, tokens
    _best_of_chunk[(chunks, rows)](
        *(logits, logits.stride(0), *arguments),
        vocab=vocab,
        chunk=chunk,
        num_warps=4 if chunk == SMALL_CHUNK else 8,
        **chain(logits.device),
    )
    block = triton.next_power_of_2(chunks)
    _best_of_row[(rows,)](bests, tokens, result, last, owners, chunks, block, num_warps=4, **chain(logits.device))
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
    scores, failed = twin_scores(logits, temperature, seeds, positions)
    tokens = scores.max(dim=-1).indices
    last[owners] = tokens
    return torch.stack((tokens, failed.long())).int()


def twin_scores(
    logits: torch.Tensor, temperature: torch.Tensor, seeds: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores [rows, vocab], and which rows failed."""
    scores = logits.float().nan_to_num(float("inf"), float("inf"), float("-inf"))
    first = _mix_twin(_mix_twin((positions + 0x9E3779B9) & MASK) ^ (seeds & MASK)).unsqueeze(1)
    second = _mix_twin(first ^ ((seeds >> 32) & MASK).unsqueeze(1))
    noise = gumbel_twin(first, second, torch.arange(logits.shape[1], device=logits.device))
    scores = scores + temperature.unsqueeze(1) * noise
    return scores, scores.amax(dim=1).isinf()


def gumbel_twin(first: torch.Tensor, second: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    """Unsigned arithmetic of 32 bits in int64, whose low half is the same."""
    x = token ^ first
    x = ((x ^ (x >> 16)) * 0x7FEB352D & MASK) ^ second
    x = (x ^ (x >> 15)) * 0x846CA68B & MASK
    point = ((x ^ (x >> 16)).float() * 2.0**-32 + 2.0**-33).clamp_(max=0.99999994)
    return -(-torch.log1p(-point)).log()


def _mix_twin(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ (x >> 16)) * 0x7FEB352D & MASK
    x = (x ^ (x >> 15)) * 0x846CA68B & MASK
    return x ^ (x >> 16)
