"""Scheduler and engine put together, without processes or sockets: what the scheduler process loops over, and the door
for tests and offline use.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from minisgl.args import LaunchArgs
from minisgl.attention import backends
from minisgl.device import resolve_device
from minisgl.distributed.group import Group
from minisgl.engine.batch import Batch, Sampled
from minisgl.engine.engine import Engine, Phase
from minisgl.kvcache.base import PrefixCache
from minisgl.kvcache.naive import NaivePrefixCache
from minisgl.kvcache.radix import RadixPrefixCache
from minisgl.messages import DecodeParams, Finish, Generate, SamplingParams, Step
from minisgl.plan.config import EngineConfig
from minisgl.plan.model import ModelConfig
from minisgl.plan.pace import even_past
from minisgl.scheduler.config import SchedulerConfig
from minisgl.scheduler.grammar import Guidance
from minisgl.scheduler.scheduler import Scheduler
from minisgl.source import EVERYTHING, SETTINGS, find_model

COMPILING_SECONDS = 0.001  # between two looks at what is being compiled


def build_engine(args: LaunchArgs, group: Group | None = None, phase: Phase = lambda name, done, total: None) -> Engine:
    """Find the model, decide everything, load it."""
    wanted = SETTINGS if args.dummy_weight else EVERYTHING
    folder = find_model(args.model_path, wanted, lambda done, total: phase("download", done, total))
    config = EngineConfig.resolve(args, ModelConfig.read(folder), resolve_device(args.device), backends.installed())
    return Engine(config, folder, group, phase)


def build_scheduler(engine: Engine, seed: int | None = None) -> Scheduler:
    """A scheduler with the limits of this engine."""
    config = engine.config
    cache: PrefixCache = {"radix": RadixPrefixCache, "naive": NaivePrefixCache}[config.cache_type](config.page_size)
    limits = SchedulerConfig(
        num_pages=engine.cache_size.pages,
        page_size=config.page_size,
        max_running=config.max_running_requests,
        max_step_tokens=config.max_step_tokens,
        context_length=engine.context_length,
        vocab_size=config.model.vocab_size,
        eos_token_ids=config.model.eos_token_ids,
        even_past=even_past(config.model),
    )
    words = engine.folder / "tokenizer.json"
    return Scheduler(limits, cache, seed, Guidance(words, config.model.vocab_size, config.model.eos_token_ids))


class Driver:
    """Rank 0's two halves. `replay` passes each decided step to the other ranks before this one computes it."""

    def __init__(self, engine: Engine, replay: Callable[[Batch], None] = lambda batch: None) -> None:
        self.engine, self.scheduler = engine, build_scheduler(engine)
        self._replay = replay
        self._flying: deque[Callable[[], Sampled]] = deque()
        self._next_uid = 0

    def step(self) -> Batch | None:
        """Decide a step and start it, then take in the one before (with overlap) or this one; None: nothing started.

        overlap   scheduler  │ plan 2 │ complete 1 │ plan 3 │ complete 2 │
                  engine     │ compute 1 │ compute 2       │ compute 3
        """
        batch = self.scheduler.plan()
        if batch is not None:
            self._replay(batch)
            self._flying.append(self.engine.launch(batch))
        if self._flying and (batch is None or not self.engine.config.overlap or len(self._flying) > 1):
            self.scheduler.complete(self._flying.popleft()())
        elif batch is None and self.scheduler.has_work:  # a grammar is being compiled
            time.sleep(COMPILING_SECONDS)
        return batch

    def take(self) -> Step:
        """The results since the last call."""
        return self.scheduler.results.take(self.scheduler.stats())

    def generate(self, prompts: Sequence[Sequence[int]], sampling: SamplingParams) -> list[list[int]]:
        """Answer all prompts together; token ids in, token ids out. ValueError carries the sentence of a failure."""
        first = self._next_uid
        self._next_uid += len(prompts)
        for i, prompt in enumerate(prompts):
            ids = np.array(prompt, np.int32).tobytes()
            self.scheduler.add(Generate(first + i, ids, sampling, DecodeParams()))
        answers: list[list[int]] = [[] for _ in prompts]
        while self.scheduler.has_work or self.scheduler.results:
            self.step()
            results = self.take()
            for uid, token, finish in unpack(results):
                if finish == Finish.ERROR:
                    raise ValueError(results.errors[uid])
                if token >= 0:
                    answers[uid - first].append(token)
        return answers


def unpack(step: Step) -> list[tuple[int, int, Finish]]:
    """The rows of a message: uid, token (-1: none), how the request stands."""
    columns = (
        np.frombuffer(step.uids, np.int64),
        np.frombuffer(step.tokens, np.int32),
        np.frombuffer(step.finish, np.uint8),
    )
    return [(uid, token, Finish(finish)) for uid, token, finish in zip(*(c.tolist() for c in columns), strict=True)]
