"""Attention in plain torch, on any device: the reference that other backends are proven equal to.

Requests with one token are padded batches over gathered pages, those of like length together; each longer one is
attended alone. A query head's group shares its KV head, so in decode the group stands where a sequence of queries
would: no copies of keys.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from minisgl.attention import geometry
from minisgl.attention.base import AttentionBackend
from minisgl.kvcache.pool import KVPool

# Keys that a step must save to be cut once more: about what a second call costs.
WORTH_A_CUT = 512
# Numbers in the keys of one batch: with their values they are still in a core's cache when they are multiplied.
MOST_AT_ONCE = 2**19
# From this many numbers on, and up to this many KV heads, one product over all heads is faster than one for each.
LEAST_FOR_BLOCKS, MOST_HEADS_IN_BLOCKS = 2**16, 8


class _Singles(NamedTuple):
    """Requests with one token that are attended together, padded to the longest. Views are made once for all layers."""

    rows: torch.Tensor | None  # their places in the step; None: all there are, in order
    table: torch.Tensor  # pages, row by row
    into: tuple[torch.Tensor, torch.Tensor]  # where keys and values are gathered, page by page
    keys: torch.Tensor  # what is gathered, [rows, kv_heads, length, head_dim]; in blocks [rows, kv_heads * dim, length]
    values: torch.Tensor  # as the keys; in blocks [rows, length, kv_heads * dim]
    mask: torch.Tensor | None  # what a row may not see, [rows, 1, 1, length], in blocks [rows, 1, length]
    blocks: bool  # all heads in one product


class _Prefill(NamedTuple):
    """One request with several tokens: tokens `begin` to `end` of the step, after `start` cached ones."""

    begin: int
    end: int
    start: int
    pages: torch.Tensor
    mask: torch.Tensor | None  # None: nothing cached, plain causal


class TorchAttention(AttentionBackend):
    """Holds the geometry of the current step between `begin` and the last `attend`."""

    def __init__(self, pool: KVPool, num_heads: int) -> None:
        super().__init__(pool, num_heads)
        kv_heads, k, dtype = pool.num_kv_heads, pool.k, pool.dtype
        self._row_width = kv_heads * k.shape[-1]
        # Kept, because memory that is taken anew for every layer is handed out page by page, slower than it is read.
        self._scratch = k.new_empty(2, MOST_AT_ONCE, dtype=dtype)
        # Torch's fused kernel makes one small product per row and KV head; in bfloat16 on a CPU that is 3 times slower.
        self._may_block = k.device.type == "cpu" and dtype == torch.bfloat16 and kv_heads <= MOST_HEADS_IN_BLOCKS
        self._own = torch.eye(kv_heads, dtype=dtype, device=k.device).view(kv_heads, 1, kv_heads, 1)

    def begin(self, starts: NDArray[np.int32], counts: NDArray[np.int32], pages: NDArray[np.int32]) -> None:
        size, device = self.pool.page_size, self.pool.k.device
        self._slots = torch.from_numpy(geometry.slots(starts, counts, pages, size)).to(device)

        num_single = int(np.count_nonzero(counts == 1))
        self._num_single = num_single
        self._singles = []
        if num_single:
            lengths = starts[:num_single] + 1
            parts = cut(lengths, MOST_AT_ONCE // self._row_width)
            self._singles = [self._singles_of(lengths, pages, part if len(parts) > 1 else None) for part in parts]
            if len(parts) > 1:
                self._back = torch.from_numpy(np.argsort(np.concatenate(parts))).to(device)

        self._prefills = []
        ends = np.cumsum(counts)
        for i in range(num_single, len(counts)):
            start, count, end = int(starts[i]), int(counts[i]), int(ends[i])
            used = pages[i, : -(-(start + count) // size)]
            mask = None
            if start:
                mask = torch.ones(count, start + count, dtype=torch.bool, device=device).tril_(start)
            self._prefills.append(
                _Prefill(end - count, end, start, torch.from_numpy(used.astype(np.int64)).to(device), mask)
            )

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        self.pool.store(layer, self._slots, k.flatten(1), v.flatten(1))
        if not self._prefills:
            return self._decode(layer, q)
        outs = [self._decode(layer, q[: self._num_single])] if self._num_single else []
        outs += [self._prefill(layer, part, q, k, v) for part in self._prefills]
        return outs[0] if len(outs) == 1 else torch.cat(outs)

    def _singles_of(
        self, lengths: NDArray[np.int32], pages: NDArray[np.int32], rows: NDArray[np.int64] | None
    ) -> _Singles:
        size, device, kv_heads = self.pool.page_size, self.pool.k.device, self.pool.num_kv_heads
        if rows is not None:
            lengths, pages = lengths[rows], pages[rows]
        count, longest, used = len(lengths), int(lengths.max()), -(-lengths // size)
        width = int(used.max())
        # A table's unused entries name pages of others: read the empty page in their place.
        table = np.where(np.arange(width) < used[:, None], pages[:count, :width], self.pool.empty_page)
        into = self._room_for(table.size)
        blocks = self._may_block and count * longest * self._row_width >= LEAST_FOR_BLOCKS
        if blocks:  # without gaps between the rows: these look at the rest of the last page, too
            length = width * size
            keys, values = (x.view(count, length, -1) for x in into)
            keys = keys.transpose(1, 2)
        else:
            length = longest
            keys, values = (x.view(count, width * size, kv_heads, -1)[:, :length].transpose(1, 2) for x in into)
        mask = None
        if int(lengths.min()) < length:
            hidden = torch.from_numpy(np.arange(length) >= lengths[:, None]).to(device)
            mask = torch.zeros(hidden.shape, dtype=keys.dtype, device=device).masked_fill_(hidden, float("-inf"))
            mask = mask[:, None] if blocks else mask[:, None, None]
        return _Singles(
            None if rows is None else torch.from_numpy(rows).to(device),
            torch.from_numpy(table.astype(np.int64).reshape(-1)).to(device),
            into,
            keys,
            values,
            mask,
            blocks,
        )

    def _room_for(self, num_pages: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Two tensors to gather pages in; every layer and every batch uses the same memory."""
        row = self.pool.page_size * self._row_width
        if num_pages * row > self._scratch.shape[1]:  # one long request
            self._scratch = self._scratch.new_empty(2, num_pages * row)
        keys, values = self._scratch[:, : num_pages * row].view(2, num_pages, row)
        return keys, values

    def _decode(self, layer: int, q: torch.Tensor) -> torch.Tensor:
        if len(self._singles) == 1:
            return self._attend_singles(layer, self._singles[0], q)
        outs = [self._attend_singles(layer, part, q[part.rows]) for part in self._singles]
        return torch.cat(outs).index_select(0, self._back)

    def _attend_singles(self, layer: int, part: _Singles, q: torch.Tensor) -> torch.Tensor:
        self.pool.gather(layer, part.table, part.into)
        rows, heads, dim = q.shape
        q = q.reshape(rows, self.pool.num_kv_heads, -1, dim)
        if part.blocks:
            return self._attend_in_blocks(q, part)
        out = functional.scaled_dot_product_attention(q, part.keys, part.values, attn_mask=part.mask)
        return out.reshape(rows, heads * dim)

    def _attend_in_blocks(self, q: torch.Tensor, part: _Singles) -> torch.Tensor:
        """All heads of a row in one product with its keys.

        A query stands in its KV head's block and is zero in the others; of what it gets from all, it takes its block.

            q 0  | q . . |      k | a b c |      scores  | q·a |
            q 1  | . q . |                               | q·b |
        """
        rows, kv_heads, group, dim = q.shape
        wide = (q.unsqueeze(3) * self._own).view(rows, kv_heads * group, kv_heads * dim)
        if part.mask is None:
            scores = torch.bmm(wide, part.keys).mul_(dim**-0.5)
        else:
            scores = torch.baddbmm(part.mask, wide, part.keys, alpha=dim**-0.5)
        out = torch.bmm(scores.softmax(dim=-1), part.values).view(rows, kv_heads, group, kv_heads, dim)
        return out.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2).reshape(rows, -1)

    def _prefill(self, layer: int, part: _Prefill, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        dim, kv_heads = q.shape[-1], self.pool.num_kv_heads
        if part.mask is None and not self.pool.is_narrow:
            k, v = k[part.begin : part.end], v[part.begin : part.end]
        else:
            length = part.start + part.end - part.begin
            k, v = (x.view(-1, kv_heads, dim)[:length] for x in self.pool.gather(layer, part.pages))
        out = functional.scaled_dot_product_attention(
            q[part.begin : part.end].transpose(0, 1).unsqueeze(0),
            k.transpose(0, 1).unsqueeze(0),
            v.transpose(0, 1).unsqueeze(0),
            attn_mask=part.mask,
            is_causal=part.mask is None,
            enable_gqa=kv_heads != self.num_heads,
        )
        return out.squeeze(0).transpose(0, 1).reshape(part.end - part.begin, -1)


def cut(lengths: NDArray[np.int32], most: int) -> list[NDArray[np.int64]]:
    """Divide rows into batches of at most `most` keys, padding counted, or one row; the longest first.

    Rows of like length go together: there is a cut where padding would cost more than one more batch.
    """
    rows = np.argsort(-lengths, kind="stable")
    parts = []
    while True:
        left = lengths[rows].astype(np.int64)
        # A cut before row i, and the rows from i on need no padding beyond row i's length.
        saved = (left[0] - left) * np.arange(len(rows), 0, -1)
        at = int(saved.argmax())
        if saved[at] < WORTH_A_CUT:
            at = len(rows)
        at = min(at, max(1, most // int(left[0])))
        parts.append(rows[:at])
        rows = rows[at:]
        if not len(rows):
            return parts
