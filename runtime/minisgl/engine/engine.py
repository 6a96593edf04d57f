"""The forward step of one rank: a decided batch in, sampled tokens out. Every rank runs the same batches in order.

Knows no requests and decides nothing; pages and rows are numbers to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from minisgl.attention import backends, prebuilt
from minisgl.distributed.group import Group
from minisgl.engine.batch import NOT_KNOWN, NOTHING, Batch, Sampled, Sampling, Scores
from minisgl.engine.graph import StepGraphs, num_columns
from minisgl.engine.memory import (
    NO_ROOM_FOR_CACHE,
    NO_ROOM_FOR_STEP,
    NO_ROOM_FOR_WEIGHTS,
    is_out_of_memory,
    which_memory,
)
from minisgl.engine.sampler import Drawn, draw_again, draw_plainly, sample
from minisgl.engine.scoring import score
from minisgl.engine.trial import largest_step, mixed_step, most_memory
from minisgl.errors import StartError
from minisgl.info import CacheFacts, EngineFacts, Figure, MemoryFacts
from minisgl.kernels import launcher
from minisgl.kvcache.pool import KVPool
from minisgl.models import registry, weights
from minisgl.plan.config import EngineConfig
from minisgl.plan.device import available_memory
from minisgl.plan.memory import CacheSize, divide, need, size_cache
from minisgl.plan.shapes import Cost
from minisgl.source import revision_of
from minisgl.source.fingerprint import fingerprint
from minisgl.termination import Memory, Reason

Result = Callable[[], Sampled]  # waits for a step; the other ranks' has no tokens
Phase = Callable[[str, int | None, int | None], None]  # name of a start phase, bytes done, bytes in all


class Engine:
    """Model, weights and KV cache of one rank. `context_length` is the config's, or less where the cache is small."""

    def __init__(
        self,
        config: EngineConfig,
        folder: Path,
        group: Group | None = None,
        phase: Phase = lambda name, done, total: None,
    ) -> None:
        self.config, self.folder = config, folder
        self.group = group = group or Group()
        dtype = getattr(torch, config.dtype)
        if config.device != "cpu":
            launcher.offer()
            prebuilt.check(config, torch.cuda.get_device_capability(), torch.cuda.get_device_name())
        # All ranks look before any loads; ranks on CPUs share the machine's memory.
        share = _free_memory(config) // (group.size if config.device == "cpu" else 1)
        self.free_bytes = free = group.minimum(share, config.device)
        # What cannot fit is refused before gigabytes are read.
        size_cache(config, free, need(config))

        with torch.inference_mode():
            phase("weights", 0, None)
            with _out_of_memory_means(NO_ROOM_FOR_WEIGHTS, config.device):
                model_class = registry.find(config.model.architecture)
                self.model = model_class(config.model, config.context_length, group, dtype, config.device)
                if config.dummy_weights:
                    self.weight_bytes = weights.fill_randomly(self.model.slots())
                else:
                    self.weight_bytes = weights.load(
                        self.model.slots(), folder, lambda done, total: phase("weights", done, total)
                    )
                self.weight_bytes += self.model.loaded()
            self.graphs: StepGraphs | None = None
            self.tried_bytes: int | None = None
            if config.device != "cpu":
                phase("trial", None, None)
                self.tried_bytes = self._try_largest_step()
            phase("kv-cache", None, None)
            taken = need(config, self.weight_bytes, max(self.tried_bytes or 0, config.working_bytes))
            size = size_cache(config, free, taken)
            self.cache_size = CacheSize(group.minimum(size.pages, config.device), size.limited_by)
            self.context_length = min(config.context_length, self.cache_size.pages * config.page_size)
            with _out_of_memory_means(NO_ROOM_FOR_CACHE, config.device, Memory.CACHE):
                self._make_cache(self.cache_size.pages)
            self.graph_bytes: int | None = None
            if config.graph_max_batch:
                before = _free_memory(config)
                self.graphs = self._capture(phase)
                self.graph_bytes = max(0, before - _free_memory(config))
        # A GPU computes while its launch has returned; on a CPU a thread of its own does the same.
        overlaps = config.overlap and config.device == "cpu"
        self._worker = ThreadPoolExecutor(1, "engine") if overlaps else None

    def launch(self, batch: Batch) -> Result:
        """Start a step and return what waits for its tokens. Steps are computed in the order of their launch."""
        if self._worker is None:
            return self._compute(batch)
        step = self._worker.submit(self._compute, batch)
        return lambda: step.result()()

    def logits(self, batch: Batch) -> torch.Tensor | None:
        """The scores [sampled, vocab] behind a step on rank 0, for comparison with another implementation."""
        with torch.inference_mode():
            return self._logits(batch)

    def warm_up(self) -> None:
        """Run a prefill and a decode step through page 0, before any request owns it. All ranks together.

        On a GPU also the largest of all kinds: a kernel is loaded, and memory taken, where it is first asked for.
        """
        if self.config.device != "cpu":
            self.launch(mixed_step(self.config))()
        for count in (min(4, self.context_length), 1):
            batch = Batch(
                rows=np.zeros(1, np.int32),
                tokens=np.zeros(count, np.int32),
                starts=np.zeros(1, np.int32),
                counts=np.array([count], np.int32),
                pages=np.arange(-(-count // self.config.page_size), dtype=np.int32)[None],
                sampled=np.zeros(1, np.int32),
                scrub=np.empty(0, np.int32),
                sampling=Sampling.greedy(1),
            )
            self.launch(batch)()

    def _make_cache(self, pages: int) -> None:
        config = self.config
        self.pool = KVPool(
            num_layers=config.model.num_layers,
            num_pages=pages,
            page_size=config.page_size,
            num_kv_heads=self.model.num_kv_heads,
            head_dim=config.model.head_dim,
            dtype=getattr(torch, config.dtype),
            device=config.device,
            cache_dtype=getattr(torch, config.cache_dtype),
        )
        self.attention = backends.build(config.attention_backend, self.pool, self.model.num_heads)
        # What each row sampled last, and an entry for the padding of graphs.
        self.last = torch.zeros(config.num_rows + 1, dtype=torch.int64, device=config.device)

    def _try_largest_step(self) -> int:
        """Bytes that a step takes beside weights and cache. All ranks together."""

        def step() -> None:
            self._make_cache(1)
            self._compute(largest_step(self.config))()
            del self.pool, self.attention, self.last

        with _out_of_memory_means(NO_ROOM_FOR_STEP, self.config.device):
            return most_memory(step)

    def _capture(self, phase: Phase) -> StepGraphs:
        config = self.config
        shapes = config.graph_shapes
        most_pages = -(-self.context_length // config.page_size)
        frozen = self.attention.freeze(shapes, most_pages, [num_columns(shape) for shape in shapes])
        cost = Cost.of(self.weight_bytes, config.model.num_layers)
        return StepGraphs(self.model, shapes, frozen, self.last, cost, lambda done, total: phase("graphs", done, total))

    def facts(self) -> EngineFacts:
        config, pages = self.config, self.cache_size.pages
        return EngineFacts(
            model_revision=revision_of(self.folder) or fingerprint(self.folder),
            architecture=config.model.architecture,
            device=config.device,
            dtype=config.dtype,
            attention_backend=config.attention_backend,
            tensor_parallel_size=config.tensor_parallel_size,
            vocabulary_size=config.model.vocab_size,
            context_length=self.context_length,
            max_running_requests=config.num_rows,
            max_step_tokens=config.max_step_tokens,
            cuda_graph_batch_sizes=self.graphs.batch_sizes if self.graphs else [],
            overlap=config.overlap,
            cache_type=config.cache_type,
            weight_bytes=self.weight_bytes,
            kv_cache=CacheFacts(
                pages=pages,
                page_size=config.page_size,
                tokens=pages * config.page_size,
                bytes=self.pool.num_bytes,
                dtype=config.cache_dtype,
                limited_by=self.cache_size.limited_by,
            ),
            memory=self._memory(),
        )

    def _memory(self) -> MemoryFacts:
        config, planned = self.config, need(self.config)
        return MemoryFacts(
            weight_bytes=Figure(planned=planned.weights, real=self.weight_bytes),
            kv_bytes_per_token=Figure(planned=config.token_bytes, real=self.pool.token_bytes),
            activation_bytes=Figure(planned=planned.activations, real=self.tried_bytes),
            graph_bytes=Figure(planned=planned.graphs, real=self.graph_bytes),
            cache_tokens=Figure(
                planned=divide(config, self.free_bytes, planned).pages * config.page_size,
                real=self.cache_size.pages * config.page_size,
            ),
            free_bytes=self.free_bytes,
        )

    def _compute(self, batch: Batch) -> Result:
        with torch.inference_mode():
            if not len(batch.scored):
                return self._compute_sampled(batch, self._logits(batch))
            logits, scores = self._scored_logits(batch)
            result = self._compute_sampled(batch, logits)
            return lambda: result()._replace(scores=scores)

    def _compute_sampled(self, batch: Batch, logits: torch.Tensor | None) -> Result:
        if not len(batch.sampled):
            return lambda: NOTHING
        if self.config.device != "cpu":
            return self._compute_next(batch, logits)
        rows = self._to_device(batch.rows[batch.sampled])
        drawn = None
        if logits is not None and batch.sampling is not None:
            drawn = sample(logits, batch.sampling, self.last[rows])
            self.last[rows] = drawn.chosen[0].long()
        if self.config.overlap:  # the next step may be decided before the host knows these tokens
            self.last[rows] = self.group.from_first(self.last[rows])
        return drawn.send_home() if drawn is not None else lambda: NOTHING

    def _compute_next(self, batch: Batch, logits: torch.Tensor | None) -> Result:
        """The same on a GPU, where a graph has drawn already."""
        rows, sampling = batch.rows[batch.sampled], batch.sampling
        drawn: Drawn | None = None
        before: torch.Tensor | None
        if logits is not None and sampling is not None:
            if self.graphs is not None and (graph := self.graphs.find(batch)) is not None:
                plain, before = graph.drawn(batch)
            else:
                before = None if sampling.extras is None else self.last[self._to_device(rows)]
                plain = draw_plainly(logits, sampling, rows, self.last)
            drawn = draw_again(plain, logits, sampling, rows, self.last, before)
        if self.config.overlap and self.group.size > 1:
            at = self._to_device(rows)
            self.last[at] = self.group.from_first(self.last[at])
        return drawn.send_home() if drawn is not None else lambda: NOTHING

    def _logits(self, batch: Batch) -> torch.Tensor | None:
        if len(batch.scrub):
            self.pool.scrub(self._to_device(batch.scrub))
        if self.graphs is not None and (graph := self.graphs.find(batch)) is not None:
            return graph.replay(batch)
        wanted = np.cumsum(batch.counts)[batch.sampled] - 1
        return self.model.forward(*self._inputs(batch), self._to_device(wanted), self.attention)

    def _scored_logits(self, batch: Batch) -> tuple[torch.Tensor | None, Scores | None]:
        """The same for a step in which prompt positions are scored; never in a graph, which knows one row each."""
        if len(batch.scrub):
            self.pool.scrub(self._to_device(batch.scrub))
        ends = np.cumsum(batch.counts)[batch.sampled] - 1
        wanted = np.sort(np.concatenate([ends, batch.scored]))
        hidden = self.model.hidden(*self._inputs(batch), self._to_device(wanted), self.attention)
        assert hidden is not None, "positions are scored"
        asked = hidden[self._to_device(np.searchsorted(wanted, batch.scored))]
        scores = score(asked, self.model.head.logits, batch.scoring)
        if not len(ends):
            return None, scores
        return self.model.head.logits(hidden[self._to_device(np.searchsorted(wanted, ends))]), scores

    def _inputs(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and their positions on the device; the attention is told of the batch."""
        ends = np.cumsum(batch.counts)
        first = np.repeat(batch.starts - (ends - batch.counts), batch.counts)
        positions = self._to_device(first + np.arange(len(first)))
        tokens = self._to_device(batch.tokens)
        if (unknown := np.flatnonzero(batch.tokens == NOT_KNOWN)).size:
            rows = np.repeat(batch.rows, batch.counts)[unknown]
            tokens[self._to_device(unknown)] = self.last[self._to_device(rows)]
        self.attention.begin(batch.starts, batch.counts, batch.pages)
        return tokens, positions

    def _to_device(self, indices: NDArray[np.integer]) -> torch.Tensor:
        return self.pool.place(indices.astype(np.int64))


@contextmanager
def _out_of_memory_means(sentence: str, device: str, memory: Memory | None = None) -> Iterator[None]:
    """Translate what an allocator raises; `memory` names which one, where the error itself does not tell."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            lacking = memory or which_memory(error, device)
            raise StartError(Reason.OUT_OF_MEMORY, sentence, memory=lacking) from error
        raise


def _free_memory(config: EngineConfig) -> int:
    return available_memory() if config.device == "cpu" else int(torch.cuda.mem_get_info()[0])
