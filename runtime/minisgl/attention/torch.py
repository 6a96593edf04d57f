"""Attention in plain torch, on any device: the reference that other backends are proven equal to.

Requests with one token are one padded batch over gathered pages; each longer one is attended alone. A query head's
group shares its KV head, so in decode the group stands where a sequence of queries would: no copies of keys.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from minisgl.attention.base import AttentionBackend


class _Prefill(NamedTuple):
    """One request with several tokens: tokens `begin` to `end` of the step, after `start` cached ones."""

    begin: int
    end: int
    start: int
    pages: torch.Tensor
    mask: torch.Tensor | None  # None: nothing cached, plain causal


class TorchAttention(AttentionBackend):
    """Holds the geometry of the current step between `begin` and the last `attend`."""

    _mask: torch.Tensor | None  # what single tokens may not see; None where all have the same length

    def begin(self, starts: NDArray[np.int32], counts: NDArray[np.int32], pages: NDArray[np.int32]) -> None:
        size, device = self.pool.page_size, self.pool.k.device
        owner = np.repeat(np.arange(len(counts)), counts)
        positions = _positions(starts, counts)
        slots = pages[owner, positions // size] * np.int64(size) + positions % size
        self._slots = torch.from_numpy(slots).to(device)

        num_single = int(np.count_nonzero(counts == 1))
        self._num_single = num_single
        if num_single:
            lengths = starts[:num_single] + 1
            used = -(-lengths // size)
            self._longest = int(lengths.max())
            width = int(used.max())
            # A table's unused entries name pages of others: read the empty page in their place.
            table = np.where(np.arange(width) < used[:, None], pages[:num_single, :width], self.pool.empty_page)
            self._table = torch.from_numpy(table.astype(np.int64).reshape(-1)).to(device)
            self._mask = None
            if int(lengths.min()) < self._longest:
                hidden = torch.from_numpy(np.arange(self._longest) >= lengths[:, None]).to(device)
                bias = torch.zeros(hidden.shape, dtype=self.pool.k.dtype, device=device)
                self._mask = bias.masked_fill_(hidden, float("-inf"))[:, None, None, :]

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

    def _decode(self, layer: int, q: torch.Tensor) -> torch.Tensor:
        rows, heads, dim = q.shape
        k, v = (x.view(rows, -1, self.pool.num_kv_heads, dim) for x in self.pool.gather(layer, self._table))
        out = functional.scaled_dot_product_attention(
            q.reshape(rows, self.pool.num_kv_heads, -1, dim),
            k[:, : self._longest].transpose(1, 2),
            v[:, : self._longest].transpose(1, 2),
            attn_mask=self._mask,
        )
        return out.reshape(rows, heads * dim)

    def _prefill(self, layer: int, part: _Prefill, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        dim, kv_heads = q.shape[-1], self.pool.num_kv_heads
        if part.mask is None:
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


def _positions(starts: NDArray[np.int32], counts: NDArray[np.int32]) -> NDArray[np.int64]:
    """Position of every token: start, start + 1, … request by request."""
    first = np.repeat(starts - (np.cumsum(counts) - counts), counts)
    return first.astype(np.int64) + np.arange(len(first))
