"""Steps as CUDA graphs: gathering tokens, the model's forward pass and the draw are one launch, for some shapes.

A batch takes the cheapest shape that holds it (`plan.shapes`); what is missing is padding, whose row is one that no
request owns and whose page is the pool's empty one. Knows no requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from minisgl.attention.base import CapturedAttention
from minisgl.engine.batch import Batch
from minisgl.models.decoder import Decoder
from minisgl.plan.shapes import Cost, Shape, is_skewed, smallest


class StepGraphs:
    """One graph per shape; the largest is captured first, so that the smaller ones fit into its memory."""

    def __init__(
        self,
        model: Decoder,
        shapes: Sequence[Shape],
        attentions: Sequence[CapturedAttention],
        last: torch.Tensor,
        cost: Cost,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """`attentions`: one for each shape, with room for `num_columns`. `last` int64 [rows + 1]: the token that each
        row sampled last; its final entry is padding's.
        """
        self.shapes, self._cost = list(shapes), cost
        self._found: dict[Shape, _StepGraph | None] = {}
        self._graphs: dict[Shape, _StepGraph] = {}
        pool = None
        for done, (shape, attention) in enumerate(sorted(zip(shapes, attentions, strict=True), key=_tokens)[::-1]):
            progress(done, len(shapes))
            self._graphs[shape] = _StepGraph(model, attention, last, shape, pool)
            pool = self._graphs[shape].pool

    @property
    def batch_sizes(self) -> list[int]:
        """Of decode steps, ascending."""
        return sorted({shape.tokens for shape in self.shapes if shape.is_decode})

    def find(self, batch: Batch) -> _StepGraph | None:
        """The graph for a batch; None when there is none."""
        tokens, requests = len(batch.tokens), len(batch.counts)
        if len(batch.scored) or (tokens == requests and len(batch.sampled) < requests):
            return None
        asked = Shape(tokens, requests, requests - batch.num_single)
        graph = self._smallest(asked)
        if graph is None or not graph.is_whole:
            return graph
        lengths = batch.starts + batch.counts
        if is_skewed(int(lengths.max()), int(lengths.sum()), graph.kv_heads):
            return self._smallest(asked._replace(is_shared=True)) or graph
        return graph

    def _smallest(self, asked: Shape) -> _StepGraph | None:
        if asked not in self._found:  # there are at most as many as tokens times requests in a graph
            at = smallest(self.shapes, asked)
            worth = at is not None and self._cost.allows(self.shapes[at], asked.tokens)
            self._found[asked] = self._graphs[self.shapes[at]] if at is not None and worth else None
        return self._found[asked]


def _tokens(pair: tuple[Shape, CapturedAttention]) -> Shape:
    return pair[0]


def num_columns(shape: Shape) -> int:
    """Numbers of a step beside attention's geometry."""
    return 3 * shape.tokens + 5 * shape.requests


class _Columns(NamedTuple):
    """What a step needs beside attention's geometry, which brings it along; int64."""

    tokens: Any  # [tokens], as the next two
    rows: Any
    positions: Any
    wanted: Any  # [requests], as all that follow, and of those that are sampled: which token
    owners: Any  # the row that keeps what is drawn
    next_positions: Any
    seeds: Any
    temperature: Any  # float32 in the front half

    @classmethod
    def cut(cls, buffer: torch.Tensor, shape: Shape) -> _Columns:
        return cls(*torch.split(buffer, [shape.tokens] * 3 + [shape.requests] * 5))


class _StepGraph:
    """
    rank 0    gather tokens, forward, draw, scatter to `last`        the others    gather tokens, forward
    """

    def __init__(
        self,
        model: Decoder,
        attention: CapturedAttention,
        last: torch.Tensor,
        shape: Shape,
        pool: tuple[int, int] | None,
    ) -> None:
        from minisgl.kernels import tuned
        from minisgl.kernels.draw import draw
        from minisgl.kernels.known import fill_in

        self._attention, self._padding = attention, len(last) - 1
        self.shape, self.is_whole, self.kv_heads = shape, attention.is_whole, attention.pool.num_kv_heads
        self._columns = columns = _Columns.cut(attention.own, shape)
        self._hosts = [_Columns(*(part.numpy() for part in _Columns.cut(host, shape))) for host in attention.own_hosts]
        count = 1 if shape.is_decode else 2  # a prompt where there may be one
        batch = Batch(
            rows=np.full(1, self._padding, np.int32),
            tokens=np.zeros(count, np.int32),
            starts=np.zeros(1, np.int32),
            counts=np.full(1, count, np.int32),
            pages=np.zeros((1, count), np.int32),
            sampled=np.zeros(1, np.int32),
            scrub=np.empty(0, np.int32),
        )
        self._bring(batch)

        def step() -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
            tokens = fill_in(columns.tokens, columns.rows, last)
            logits = model.forward(tokens, columns.positions, columns.wanted, attention)
            if logits is None:
                return tokens, None, None
            temperature = columns.temperature.view(torch.float32)[: shape.requests]
            return (
                tokens,
                logits,
                draw(logits, temperature, columns.seeds, columns.next_positions, last, columns.owners),
            )

        self.run = step  # kernel by kernel, what a replay does at once
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), tuned.choosing():  # kernels are compiled in a run that is not captured
            step()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):  # type: ignore[arg-type]
            self._tokens, self._logits, self._drawn = step()
        self.pool = self._graph.pool()
        self._graph.replay()  # the first launch brings it to the device, which takes milliseconds

    def replay(self, batch: Batch) -> torch.Tensor | None:
        """Logits [sampled, vocab] on rank 0, valid until the next replay; then `drawn` has what was drawn."""
        self._bring(batch)
        self._graph.replay()
        return None if self._logits is None else self._logits[: len(batch.sampled)]

    def drawn(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What `draw_plainly` gives for the step just replayed, for padding too, and for extras the tokens before
        [sampled].
        """
        assert self._drawn is not None, "only rank 0 draws"
        real = len(batch.sampled)
        has_extras = batch.sampling is not None and batch.sampling.extras is not None
        return self._drawn, self._tokens[self._columns.wanted[:real]] if has_extras else None

    def _bring(self, batch: Batch) -> None:
        turn = self._attention.open()
        columns = self._hosts[turn]
        real, sampled = len(batch.tokens), len(batch.sampled)
        ends = batch.starts + batch.counts
        bounds = np.cumsum(batch.counts)
        columns.tokens[:real], columns.tokens[real:] = batch.tokens, 0
        columns.rows[:real], columns.rows[real:] = np.repeat(batch.rows, batch.counts), self._padding
        columns.positions[:real] = np.repeat(ends - bounds, batch.counts) + np.arange(real)
        columns.positions[real:] = 0
        columns.wanted[:sampled], columns.wanted[sampled:] = bounds[batch.sampled] - 1, 0
        columns.owners[:sampled], columns.owners[sampled:] = batch.rows[batch.sampled], self._padding
        columns.next_positions[:sampled] = ends[batch.sampled]
        temperature = columns.temperature.view(np.float32)
        temperature[:] = 0
        if (sampling := batch.sampling) is not None:
            columns.seeds[:sampled] = sampling.seeds.view(np.int64)
            temperature[:sampled] = sampling.temperature
        self._attention.bring(turn, batch.starts, batch.counts, batch.pages)
