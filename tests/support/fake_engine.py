"""An engine that remembers which token of which request lies in which slot, and a scheduler for it.

It answers with a number computed from the whole history that it reads through the pages, so a page that was given
away, written twice or never written shows as a wrong answer.
"""

from collections import deque
from collections.abc import Callable

import numpy as np

from minisgl.engine.batch import NOT_KNOWN, Batch, Sampled
from minisgl.kvcache.naive import NaivePrefixCache
from minisgl.kvcache.radix import RadixPrefixCache
from minisgl.messages import DecodeParams, Finish, Generate, SamplingParams
from minisgl.scheduler.config import SchedulerConfig
from minisgl.scheduler.driver import unpack
from minisgl.scheduler.scheduler import Scheduler

VOCAB, EOS = 50, 49


def next_token(history: list[int]) -> int:
    """What the fake model says after `history`; ends (EOS) about once in fifty tokens."""
    value = 7
    for token in history:
        value = (value * 31 + token + 1) % 9973
    return value % VOCAB


def answer(prompt: list[int], max_tokens: int, ignore_eos: bool = False) -> tuple[list[int], Finish]:
    """The oracle: this request alone."""
    out: list[int] = []
    while len(out) < max_tokens:
        out.append(next_token(prompt + out))
        if out[-1] == EOS and not ignore_eos:
            return out, Finish.STOP
    return out, Finish.LENGTH


class FakeEngine:
    """Slots hold the tokens that were stored there. A step is computed at its launch, or as late as its result."""

    def __init__(self, num_pages: int, page_size: int, num_rows: int, *, late: bool = False) -> None:
        self.size, self.late = page_size, late
        self.slots = np.full(num_pages * page_size, -1)
        self.last = np.full(num_rows, -1)
        self.failing: set[int] = set()  # rows whose logits are unusable

    def launch(self, batch: Batch) -> Callable[[], Sampled]:
        if self.late:
            return lambda: self._compute(batch)
        sampled = self._compute(batch)
        return lambda: sampled

    def _compute(self, batch: Batch) -> Sampled:
        rows = np.repeat(batch.rows, batch.counts)
        tokens = np.where(batch.tokens == NOT_KNOWN, self.last[rows], batch.tokens)
        assert (tokens >= 0).all(), "a token that was never sampled"
        ends = np.cumsum(batch.counts)
        where = []
        for i, end in enumerate(ends.tolist()):
            positions = np.arange(batch.starts[i] + batch.counts[i])
            where.append(batch.pages[i, positions // self.size] * self.size + positions % self.size)
            self.slots[where[i][batch.starts[i] :]] = tokens[end - batch.counts[i] : end]
        written = np.concatenate([w[s:] for w, s in zip(where, batch.starts, strict=True)])
        assert len(set(written.tolist())) == len(written), "two tokens were written to one slot"
        new = np.array([next_token(self.slots[where[i]].tolist()) for i in batch.sampled], np.int32)
        self.last[batch.rows[batch.sampled]] = new
        failed = np.isin(batch.rows[batch.sampled], list(self.failing))
        return Sampled(new, failed)


def make(
    num_pages: int = 16,
    page_size: int = 4,
    cache: str = "radix",
    running: int = 4,
    budget: int = 16,
    *,
    late: bool = False,
    even: int | None = None,
) -> tuple[Scheduler, FakeEngine]:
    config = SchedulerConfig(
        num_pages=num_pages,
        page_size=page_size,
        max_running=running,
        max_step_tokens=budget,
        context_length=num_pages * page_size,
        vocab_size=VOCAB,
        eos_token_ids=(EOS,),
        even_past=even,
    )
    caches = {"radix": RadixPrefixCache, "naive": NaivePrefixCache}
    engine = FakeEngine(num_pages, page_size, config.num_rows, late=late)
    return Scheduler(config, caches[cache](page_size), seed=0), engine


def generate(uid: int, prompt: list[int], max_tokens: int, priority: int = 0, **sampling: object) -> Generate:
    params = SamplingParams(max_tokens, temperature=0, **sampling)  # type: ignore[arg-type]
    return Generate(uid, np.array(prompt, np.int32).tobytes(), params, DecodeParams(), priority)


class Loop:
    """Scheduler and engine, stepped as the driver does: with overlap, a step is planned before the last is known."""

    def __init__(self, scheduler: Scheduler, engine: FakeEngine, *, overlap: bool = False) -> None:
        self.scheduler, self.engine, self.overlap = scheduler, engine, overlap
        self.flying: deque[Callable[[], Sampled]] = deque()
        self.tokens: dict[int, list[int]] = {}
        self.ends: dict[int, Finish] = {}
        self.errors: dict[int, str] = {}

    def plan(self) -> Batch | None:
        batch = self.scheduler.plan()
        if batch is not None:
            self.flying.append(self.engine.launch(batch))
        return batch

    def complete(self) -> None:
        self.scheduler.complete(self.flying.popleft()())

    def step(self) -> Batch | None:
        batch = self.plan()
        if self.flying and (batch is None or not self.overlap or len(self.flying) > 1):
            self.complete()
        self.take()
        return batch

    def take(self) -> None:
        """Check the books, and note what came out: nothing after an end, and each end once."""
        self.scheduler.check_integrity()
        step = self.scheduler.results.take(None)
        self.errors |= step.errors
        for uid, token, finish in unpack(step):
            assert uid not in self.ends, "nothing comes after the end"
            self.tokens.setdefault(uid, []).extend([token] if token >= 0 else [])
            if finish != Finish.RUNNING:
                self.ends[uid] = finish

    def run(self, most_steps: int = 3000) -> None:
        """Step until nothing is left to do."""
        for _ in range(most_steps):
            self.step()
            if not self.scheduler.has_work:
                return
        raise AssertionError("the scheduler does not come to an end")
