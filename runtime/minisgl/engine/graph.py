"""Decode steps as CUDA graphs: gathering tokens, the model's forward pass and the draw are one launch, for some sizes.

A batch takes the smallest size that holds it; what is missing is padding, whose row is one that no request owns and
whose page is the pool's empty one. Knows no requests.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable

import numpy as np
import torch

from minisgl.attention.base import AttentionBackend
from minisgl.engine.batch import NOT_KNOWN, Batch
from minisgl.models.decoder import Decoder

# Of a step's buffer, int64; of the new tokens the positions, seeds, and temperatures as float32 in the front half.
COLUMNS = ("tokens", "rows", "positions", "next positions", "seeds", "temperature")

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
        if at == len(self.sizes) or len(batch.tokens) > len(batch.counts) or len(batch.scored):
            return None
        return self._graphs[at]


class _DecodeGraph:
    """What a step needs lies in one buffer, so that one copy brings it.

    rank 0    gather tokens, forward, draw, scatter to `last`        the others    gather tokens, forward
    """

    def __init__(
        self, model: Decoder, attention: AttentionBackend, last: torch.Tensor, size: int, pool: tuple[int, int] | None
    ) -> None:
        from minisgl.kernels.draw import draw

        self._attention, self._padding = attention, len(last) - 1
        self._columns = torch.zeros(len(COLUMNS), size, dtype=torch.int64, device=last.device)
        # In twos: the copy of one step may wait on the device while the next step is written.
        self._hosts = [
            (torch.zeros(len(COLUMNS), size, dtype=torch.int64, pin_memory=True), torch.cuda.Event())  # type: ignore[no-untyped-call]
            for _ in range(2)
        ]
        batch = Batch(
            rows=np.full(1, self._padding, np.int32),
            tokens=np.zeros(1, np.int32),
            starts=np.zeros(1, np.int32),
            counts=np.ones(1, np.int32),
            pages=np.zeros((1, 1), np.int32),
            sampled=np.zeros(1, np.int32),
            scrub=np.empty(0, np.int32),
        )
        self._write(batch)
        attention.begin(batch.starts, batch.counts, batch.pages)
        wanted = torch.arange(size, device=last.device)

        def step() -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
            given, rows, at, next_at, seeds, packed = self._columns
            tokens = torch.where(given == NOT_KNOWN, last[rows], given)
            logits = model.forward(tokens, at, wanted, attention)
            if logits is None:
                return tokens, None, None
            return tokens, logits, draw(logits, packed.view(torch.float32)[:size], seeds, next_at, last, rows)

        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # kernels are chosen and compiled in a run that is not captured
            step()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):  # type: ignore[arg-type]
            self._tokens, self._logits, self._drawn = step()
        self.pool = self._graph.pool()

    def replay(self, batch: Batch) -> torch.Tensor | None:
        """Logits [requests, vocab] on rank 0, valid until the next replay; then `drawn` has what was drawn."""
        self._write(batch)
        self._attention.begin(batch.starts, batch.counts, batch.pages)
        self._graph.replay()
        return None if self._logits is None else self._logits[: len(batch.counts)]

    def drawn(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """What `draw_plainly` gives for the step just replayed, and the tokens before, both [sampled]."""
        assert self._drawn is not None, "only rank 0 draws"
        real = len(batch.counts)
        drawn, before = self._drawn[:, :real], self._tokens[:real]
        if len(batch.sampled) == real:
            return drawn, before
        at = torch.from_numpy(batch.sampled.astype(np.int64)).to(drawn.device)
        return drawn[:, at], before[at]

    def _write(self, batch: Batch) -> None:
        host, copied = self._hosts[0]
        self._hosts.reverse()
        copied.synchronize()
        values, real = host.numpy(), len(batch.tokens)
        tokens, rows, at, next_at, seeds, packed = values
        temperature = packed.view(np.float32)
        tokens[:real], rows[:real], at[:real] = batch.tokens, batch.rows, batch.starts
        next_at[:real] = batch.starts + 1
        tokens[real:], rows[real:], at[real:] = 0, self._padding, 0
        temperature[:] = 0  # where nothing is sampled, something is drawn all the same
        if (sampling := batch.sampling) is not None:
            seeds[batch.sampled] = sampling.seeds.view(np.int64)
            temperature[batch.sampled] = sampling.temperature
        self._columns.copy_(host, non_blocking=True)
        copied.record()
