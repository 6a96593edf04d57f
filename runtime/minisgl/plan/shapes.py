"""Which steps are captured in CUDA graphs, and which graph a step takes. Pure.

A shape is the most tokens, requests, and requests with several tokens (prompts) that a graph holds; what a step has
less is padding. Most of those that hold prompts have few requests, since each costs a line of logits; some have as many
as decode, for prompts among running requests.

Where requests are as many as fill a GPU, each one's past is read by one block of threads per KV head, which saves the
kernel that puts parts together. One of 8,000 tokens among 60 short ones would then keep all waiting (on an H200 2 ms of
4.8, Qwen3-0.6B). Some decode shapes therefore share each past among blocks, and so do all with prompts:

    whole     [ block 1: 600 ][ 2: 500 ][ 3: 8,000 ............................................. ]
    shared    [ block 1: 600 ][ 2: 500 ][ 3: 800 ][ 4: 800 ] ... [ 12: 800 ], then 3 to 12 are put together
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

BATCHES = (1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512)
# Beyond 64, the next one is at most half as large again: a large model pays for padding, and a small one for launches.
TOKENS = (16, 32, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048, 3072, 4096)
FEW_REQUESTS = 8
SHARED = (64, 128, 256, 512)  # decode shapes that exist twice
MOST_PROMPTS = 32  # beside running requests: they have a kernel of their own, for which each is a place to be scheduled
# Up to so many tokens, a prompt's keys are read by several processors at a time, whose parts are then added up: a few
# tokens behind 8,000 would else keep an eighth of a GPU busy.
SPLIT_TOKENS = 256

READERS = 54  # 68 / 1.25, in `is_skewed`
MORE_CHUNKS = 64
MOST_BLOCKS = 320  # that fill a GPU, two for each of its processors: H200 264, B200 296

LAUNCH_SECONDS = 0.0004  # of a layer, kernel by kernel: 12 ms for 28 layers, on the host of an H200
FLOPS = 600e12  # about what large products reach on a Hopper GPU, per second


class Shape(NamedTuple):
    """What a graph has room for."""

    tokens: int
    requests: int
    prompts: int
    is_shared: bool = False  # a request's past is read by several blocks of threads

    @property
    def is_decode(self) -> bool:
        """Each request has one token, and there are as many tokens as requests."""
        return self.prompts == 0

    @property
    def is_apart(self) -> bool:
        """Requests with one token and prompts are attended by two kernels: not all requests can be prompts."""
        return 0 < self.prompts < self.requests


def decode_shapes(largest: int, *, shared: bool = False) -> list[Shape]:
    """Of decode steps up to `largest` requests, which is among them; none for 0. `shared`: the kernel can do both."""
    sizes = {size for size in BATCHES if size < largest} | ({largest} if largest else set())
    twice = {size for size in SHARED if size < largest} | ({largest} if largest > SHARED[0] // 2 else set())
    return sorted([Shape(size, size, 0) for size in sizes] + [Shape(size, size, 0, True) for size in twice if shared])


def mixed_shapes(most_tokens: int, most_requests: int) -> list[Shape]:
    """Of other steps up to `most_tokens`; none for 0."""
    few = min(FEW_REQUESTS, most_requests)
    shapes = {Shape(tokens, few, few) for tokens in TOKENS if few < tokens <= most_tokens}
    # Every second one: each keeps the logits of all its requests. Half as many requests where those weigh.
    for requests, longest in ((most_requests // 2, 2 * most_requests), (most_requests, most_tokens)):
        prompts = min(MOST_PROMPTS, requests)
        many = [tokens for tokens in TOKENS[::-2] if few < requests <= tokens <= min(longest, most_tokens)]
        shapes |= {Shape(tokens, requests, prompts, True) for tokens in many}
    return sorted(shapes)


class Cost(NamedTuple):
    """What decides whether a graph is worth its padding."""

    seconds_per_token: float  # of a long step, on the device
    launch_seconds: float  # of a step without a graph, on the host

    @classmethod
    def of(cls, weight_bytes: int, num_layers: int) -> Cost:
        """In 16 bits: one product and one sum per weight, so as many as its bytes."""
        return cls(weight_bytes / FLOPS, LAUNCH_SECONDS * num_layers)

    def allows(self, shape: Shape, tokens: int) -> bool:
        """Host and device work at the same time: what counts is the longer. A graph's own launch saves 1 ms more."""
        plainly = max(self.launch_seconds, tokens * self.seconds_per_token + 0.001)
        return shape.is_decode or shape.tokens * self.seconds_per_token <= plainly


def smallest(shapes: Sequence[Shape], step: Shape) -> int | None:
    """The index of the cheapest shape for a step; None: it is not captured."""
    fitting: Iterable[int] = (
        at
        for at, shape in enumerate(shapes)
        if shape.is_decode == step.is_decode and all(most >= is_ for most, is_ in zip(shape, step, strict=True))
    )
    return min(fitting, key=lambda at: shapes[at], default=None)


def is_skewed(longest: int, total: int, kv_heads: int) -> bool:
    """Whether the longest of a decode step's requests alone takes longer to read than all together, in tokens.

    Measured on an H200: a block of threads reads 59 GB/s, and all of them 4 TB/s, as much as 68 blocks. A quarter more
    than that pays for putting the parts together.
    """
    return longest * READERS > total * kv_heads


def num_chunks(requests: int, kv_heads: int, blocks: int) -> int:
    """Into how many chunks the pasts of a step's requests are cut at most: until `blocks`, one for each KV head, fill
    the GPU, and where requests do so already, twice as many as requests, or 64 more.
    """
    return max(blocks // kv_heads, min(2 * requests, requests + MORE_CHUNKS))


def shared_bytes(requests: int, heads: int, kv_heads: int, dim: int, blocks: int = MOST_BLOCKS) -> int:
    """Most bytes that FlashInfer's kernel asks for in a decode step of so many requests whose pasts are cut: as
    `split_bytes`, with tiles of 16 heads that share keys, or 64.
    """
    lines = 16 if heads // kv_heads <= 16 else 64
    return num_chunks(requests, kv_heads, blocks) * lines * heads * (dim + 1) * 4 + 2**20


def split_bytes(shapes: Sequence[tuple[int, int]], heads: int, kv_heads: int, dim: int) -> int:
    """Most bytes that FlashInfer's kernel that splits prompts asks for in captured steps of (tokens, prompts).

    It keeps room for a float32 result of every tile of 128 queries, and for each query's log-sum.
    """
    tiles = max((-(-tokens * heads // kv_heads // 128) + requests for tokens, requests in shapes), default=0)
    return tiles * 128 * heads * (dim + 1) * 4 + 2**20
