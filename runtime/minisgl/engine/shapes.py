"""Which steps are captured in CUDA graphs, and which graph a step takes. Pure.

A shape is the most tokens and the most requests that a graph holds; what a step has less is padding. Where they are
equal, each request has one token: a decode step. Others hold any step. Most have few requests, since each costs a line
of logits; some have as many as decode, for a prompt among running requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

BATCHES = (1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512)
# Beyond 64, the next one is at most half as large again: a large model pays for padding, and a small one for launches.
TOKENS = (16, 32, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048)
FEW_REQUESTS = 8


class Shape(NamedTuple):
    """What a graph has room for."""

    tokens: int
    requests: int

    @property
    def is_decode(self) -> bool:
        return self.tokens == self.requests


def decode_shapes(largest: int) -> list[Shape]:
    """Of decode steps up to `largest` requests, which is among them; none for 0."""
    sizes = {size for size in BATCHES if size < largest} | ({largest} if largest else set())
    return [Shape(size, size) for size in sorted(sizes)]


def mixed_shapes(most_tokens: int, most_requests: int) -> list[Shape]:
    """Of other steps up to `most_tokens`; none for 0."""
    counts = {min(FEW_REQUESTS, most_requests), most_requests}
    return [Shape(tokens, count) for tokens in TOKENS if tokens <= most_tokens for count in counts if count < tokens]


def smallest(shapes: Sequence[Shape], tokens: int, requests: int) -> int | None:
    """The index of the cheapest shape for a step; None: it is not captured. `tokens` = `requests` is a decode step."""
    fitting: Iterable[int] = (
        at
        for at, shape in enumerate(shapes)
        if shape.is_decode == (tokens == requests) and shape.tokens >= tokens and shape.requests >= requests
    )
    return min(fitting, key=lambda at: shapes[at], default=None)
