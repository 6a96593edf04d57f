"""Two backends as one: the first for requests with several tokens, the second for those with one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from minisgl.attention.base import AttentionBackend, CapturedAttention
from minisgl.attention.frozen import freeze
from minisgl.plan.shapes import Shape


class PairAttention(AttentionBackend):
    """Each half sees only its own requests; both write to the same pool."""

    def __init__(self, prefill: AttentionBackend, decode: AttentionBackend) -> None:
        super().__init__(prefill.pool, prefill.num_heads)
        self.prefill, self.decode = prefill, decode

    def begin(self, starts: NDArray[np.int32], counts: NDArray[np.int32], pages: NDArray[np.int32]) -> None:
        single = self._num_single = int(np.count_nonzero(counts == 1))
        self._has_prefill = single < len(counts)
        if single:
            self.decode.begin(starts[:single], counts[:single], pages[:single])
        if self._has_prefill:
            self.prefill.begin(starts[single:], counts[single:], pages[single:])
        parts = [self.decode.slots] * (single > 0) + [self.prefill.slots] * self._has_prefill
        known = [slots for slots in parts if slots is not None]
        self.slots = torch.cat(known) if len(known) == len(parts) else None

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        single = self._num_single
        if not self._has_prefill:
            return self.decode.attend(layer, q, k, v)
        if not single:
            return self.prefill.attend(layer, q, k, v)
        decoded = self.decode.attend(layer, q[:single], k[:single], v[:single])
        return torch.cat((decoded, self.prefill.attend(layer, q[single:], k[single:], v[single:])))

    def attend_stored(self, layer: int, q: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        single = self._num_single
        out = torch.empty_like(q) if out is None else out
        if single:
            self.decode.attend_stored(layer, q[:single], out[:single])
        if self._has_prefill:
            self.prefill.attend_stored(layer, q[single:], out[single:])
        return out.flatten(1)

    def freeze(self, shapes: Sequence[Shape], most_pages: int, own: Sequence[int]) -> list[CapturedAttention]:
        return freeze(self.prefill, self.decode, shapes, most_pages, own)
