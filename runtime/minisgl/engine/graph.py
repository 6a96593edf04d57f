"""Decode steps as CUDA graphs: the model's whole forward pass is one launch, for some batch sizes.

A batch takes the smallest size that holds it; what is missing is padding, whose row is one that no request owns and
whose page is the pool's empty one. Knows no requests.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable

import numpy as np
import torch

from minisgl.attention.base import AttentionBackend
from minisgl.attention.geometry import positions
from minisgl.engine.batch import NOT_KNOWN, Batch
from minisgl.models.decoder import Decoder

SIZES = (1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512)


def graph_sizes(largest: int) -> list[int]:
    """Batch sizes to capture, `largest` among them; none for 0."""
    return sorted({size for size in SIZES if size < largest} | ({largest} if largest else set()))


class DecodeGraphs:
    """One graph per size; the largest is captured first, so that the smaller ones fit into its memory."""

    def __init__(
        self,
        model: Decoder,
        freeze: Callable[[int], AttentionBackend],
        last: torch.Tensor,
        sizes: list[int],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """`last` int64 [rows + 1]: the token that each row sampled last; its final entry is padding's."""
        self.sizes = sizes
        self._graphs: list[_DecodeGraph] = []
        pool = None
        for done, size in enumerate(reversed(sizes)):
            progress(done, len(sizes))
            graph = _DecodeGraph(model, freeze(size), last, size, pool)
            pool = graph.pool
            self._graphs.insert(0, graph)

    def find(self, batch: Batch) -> _DecodeGraph | None:
        """The graph for a batch of single tokens; None when there is none."""
        at = bisect.bisect_left(self.sizes, len(batch.counts))
        if at == len(self.sizes) or len(batch.tokens) > len(batch.counts):
            return None
        return self._graphs[at]


class _DecodeGraph:
    def __init__(
        self, model: Decoder, attention: AttentionBackend, last: torch.Tensor, size: int, pool: tuple[int, int] | None
    ) -> None:
        device = last.device
        self._attention, self._padding = attention, len(last) - 1
        self._inputs = torch.zeros(3, size, dtype=torch.int64, device=device)  # tokens, rows, positions
        # In twos: the copy of one step may wait on the device while the next step is written.
        self._hosts = [torch.zeros(3, size, dtype=torch.int64, pin_memory=True) for _ in range(2)]
        self._write(np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros(1, np.int32), np.ones(1, np.int32))
        attention.begin(np.zeros(1, np.int32), np.ones(1, np.int32), np.zeros((1, 1), np.int32))
        wanted = torch.arange(size, device=device)

        def forward() -> torch.Tensor | None:
            tokens, rows, at = self._inputs
            return model.forward(torch.where(tokens == NOT_KNOWN, last[rows], tokens), at, wanted, attention)

        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # kernels are chosen and compiled in a run that is not captured
            forward()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):  # type: ignore[arg-type]
            self._logits = forward()
        self.pool = self._graph.pool()

    def replay(self, batch: Batch) -> torch.Tensor | None:
        """Logits [requests, vocab] on rank 0, valid until the next replay."""
        self._write(batch.tokens, batch.rows, batch.starts, batch.counts)
        self._attention.begin(batch.starts, batch.counts, batch.pages)
        self._graph.replay()
        return None if self._logits is None else self._logits[: len(batch.counts)]

    def _write(self, tokens: np.ndarray, rows: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> None:
        host = self._hosts[0]
        self._hosts.reverse()
        values, real = host.numpy(), len(tokens)
        values[0, :real], values[1, :real], values[2, :real] = tokens, rows, positions(starts, counts)
        values[0, real:], values[1, real:], values[2, real:] = 0, self._padding, 0
        self._inputs.copy_(host, non_blocking=True)
