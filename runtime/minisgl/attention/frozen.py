"""Attention in CUDA graphs: steps of a fixed shape, with buffers that never move.

A step's requests with one token and its prompts may be attended by two kernels, each with a `Part` of its own. All
shapes share their memory, since only one is in use at a time:

    words   [ the caller's own | slots | singles: queries bounds last | prompts: queries bounds last | indices ...... )
    plans   how each part's kernel shares the work among processors: it brings that itself, from pinned memory
    out     what attention gives; padding reads what an earlier step left there

One copy brings the words as far as they are used. Pinned memory comes in twos: a step's copies may wait on the device
while the next step is written. In a step with both parts, singles come first, and what their padding writes is
overwritten by the prompts, whose queries begin where the real singles end:

    out     [ single single single (padding) (padding) ... ]
            [                      prompt    prompt    ... ]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from minisgl.attention import geometry
from minisgl.attention.base import AttentionBackend, CapturedAttention, Half, Part
from minisgl.attention.geometry import Paged
from minisgl.kvcache.pool import KVPool
from minisgl.plan.shapes import SPLIT_TOKENS, Shape

PLAN_BYTES = 8 * 2**20  # FlashInfer's own choice
ALIGNED = 4  # words: 16 bytes


class Views(NamedTuple):
    """Of a step's words, of which a part that the shape does not have is empty."""

    own: Any  # int64
    slots: Any  # int64 [tokens]; the rest is int32
    singles: Paged
    prompts: Paged


class Layout(NamedTuple):
    """A shape's words."""

    shape: Shape
    most_pages: int  # per request
    own: int  # numbers of the caller's

    @property
    def num_singles(self) -> int:
        """Places for requests with one token that have a kernel of their own."""
        return self.shape.requests if self.shape.is_decode or self.shape.is_apart else 0

    @property
    def num_places(self) -> int:
        return self.num_singles + self.shape.prompts

    @property
    def lengths(self) -> tuple[int, ...]:
        singles, prompts = self.num_singles, self.shape.prompts
        parts = singles + 1, singles + 1, singles, prompts + 1, prompts + 1, prompts
        return 2 * self.own, 2 * self.shape.tokens, *parts, self.num_places * self.most_pages

    @property
    def num_words(self) -> int:
        return sum(-(-length // ALIGNED) * ALIGNED for length in self.lengths)

    def cut(self, words: torch.Tensor) -> Views:
        found, at = [], 0
        for length in self.lengths:
            found.append(words[at : at + length])
            at += -(-length // ALIGNED) * ALIGNED
        own, slots, a, b, c, d, e, f, indices = found
        return Views(own.view(torch.int64), slots.view(torch.int64), Paged(a, b, c, indices), Paged(d, e, f, indices))


class Room:
    """The memory that all shapes share."""

    def __init__(self, pool: KVPool, num_heads: int, layouts: Sequence[Layout]) -> None:
        device, most_words = pool.k.device, max(layout.num_words for layout in layouts)
        most_tokens = max(layout.shape.tokens for layout in layouts)
        self.words = torch.zeros(most_words, dtype=torch.int32, device=device)
        self.plans = [torch.empty(PLAN_BYTES, dtype=torch.uint8, device=device) for _ in range(2)]
        lines = most_tokens, num_heads, pool.k.shape[-1]
        self.out, self.scratch = (torch.zeros(lines, dtype=pool.dtype, device=device) for _ in range(2))
        self.places = [_Place(most_words) for _ in range(2)]
        self._turn = 0

    def take(self) -> int:
        """The place that may be written now."""
        self._turn = 1 - self._turn
        self.places[self._turn].copied.synchronize()
        return self._turn

    def parts(self, layout: Layout) -> list[Part]:
        """Singles, then prompts, as the shape has them."""
        views, shape, pages = layout.cut(self.words), layout.shape, layout.most_pages
        scratch = self.scratch[: shape.tokens]
        singles = Part(
            *(views.singles, pages, layout.num_singles),
            is_decode=True,
            begins_late=False,
            is_shared=shape.is_shared,
            plan=self.plans[0],
            scratch=scratch,
        )
        prompts = Part(
            *(views.prompts, pages, shape.tokens),
            is_decode=False,
            begins_late=shape.is_apart,
            is_shared=True,
            plan=self.plans[1],
            scratch=scratch,
        )
        return [singles] * bool(layout.num_singles) + [prompts] * bool(shape.prompts)


class _Place:
    def __init__(self, most_words: int) -> None:
        self.words = torch.zeros(most_words, dtype=torch.int32, pin_memory=True)
        self.plans = [torch.empty(PLAN_BYTES, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]


def freeze(
    prefill: AttentionBackend,
    decode: AttentionBackend,
    shapes: Sequence[Shape],
    most_pages: int,
    own: Sequence[int],
) -> list[CapturedAttention]:
    """Captured steps of `shapes`, whose prompts are attended by `prefill` and whose singles by `decode`, which also
    takes few tokens of prompts if it is the one that splits.
    """
    layouts = [Layout(shape, most_pages, numbers) for shape, numbers in zip(shapes, own, strict=True)]
    room = Room(decode.pool, decode.num_heads, layouts)
    parts = [room.parts(layout) for layout in layouts]

    def is_decodes(part: Part) -> bool:
        return part.is_decode or (decode.splits and part.tokens <= SPLIT_TOKENS)

    made = {
        kind: iter(backend.halves([part for found in parts for part in found if is_decodes(part) == kind]))
        for kind, backend in ((True, decode), (False, prefill))
    }
    return [
        FrozenAttention(decode.pool, decode.num_heads, layout, room, [next(made[is_decodes(part)]) for part in found])
        for layout, found in zip(layouts, parts, strict=True)
    ]


class _Side(NamedTuple):
    """A part of a captured step, as the host writes it."""

    half: Half
    is_decode: bool
    hosts: list[Paged]  # pinned, by turn
    arrays: list[Paged]  # the same memory
    lengths: torch.Tensor  # of its requests in tokens, int32


class FrozenAttention(CapturedAttention):
    """Steps of at most a shape's tokens, requests and prompts.

    A padded request has one token in the empty page, and a query of its own only among singles; what else is padded is
    stored there and attended by nobody.
    """

    slots: torch.Tensor

    def __init__(self, pool: KVPool, num_heads: int, layout: Layout, room: Room, halves: Sequence[Half]) -> None:
        super().__init__(pool, num_heads)
        self.layout, self._room = layout, room
        device, views = layout.cut(room.words), [layout.cut(place.words) for place in room.places]
        self.own, self.own_hosts = device.own, [view.own for view in views]
        self.slots, self._out = device.slots, room.out[: layout.shape.tokens]
        self._slots = [view.slots.numpy() for view in views]
        self.is_whole = any(half.is_whole for half in halves)
        kinds = [True] * bool(layout.num_singles) + [False] * bool(layout.shape.prompts)
        self._sides = []
        for half, is_decode in zip(halves, kinds, strict=True):
            hosts = [view.singles if is_decode else view.prompts for view in views]
            arrays = [Paged(*(words.numpy() for words in host)) for host in hosts]
            lengths = torch.ones(len(hosts[0].last), dtype=torch.int32)
            self._sides.append(_Side(half, is_decode, hosts, arrays, lengths))

    def open(self) -> int:
        return self._room.take()

    def bring(self, turn: int, starts: NDArray[np.int32], counts: NDArray[np.int32], pages: NDArray[np.int32]) -> None:
        layout, room, size, empty = self.layout, self._room, self.pool.page_size, self.pool.empty_page
        total = int(counts.sum())
        self._slots[turn][:total] = geometry.slots(starts, counts, pages, size)
        self._slots[turn][total:] = empty * size
        single = int(np.count_nonzero(counts == 1)) if layout.num_singles else 0
        used = 0
        for side in self._sides:
            own = slice(0, single) if side.is_decode else slice(single, None)
            array, requests = side.arrays[turn], (starts[own], counts[own], pages[own])
            used = geometry.fill(array, used, own.start, requests, size, empty)
            if side.is_decode:
                array.queries[:] = np.arange(len(array.queries))
        place, words = room.places[turn], layout.num_words - layout.lengths[-1] + used
        room.words[:words].copy_(place.words[:words], non_blocking=True)
        for side, pinned in zip(self._sides, place.plans, strict=False):
            own = slice(0, single) if side.is_decode else slice(single, None)
            real = len(counts[own])
            lengths = side.lengths.numpy()
            lengths[:real], lengths[real:] = starts[own] + counts[own], 1
            side.half.plan(side.hosts[turn], side.lengths, pinned)
        place.copied.record()

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        self.pool.store(layer, self.slots, k.flatten(1), v.flatten(1))
        return self.attend_stored(layer, q.contiguous())

    def attend_stored(self, layer: int, q: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        out = self._out if out is None else out
        for side in self._sides:
            if layer == 0:
                side.half.prepare()
            side.half.attend(layer, q, out)
        return out.flatten(1)
