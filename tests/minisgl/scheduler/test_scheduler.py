"""The scheduler against a fake engine that remembers which token of which request lies in which slot.

The fake answers with a number computed from the whole history that it reads through the pages, so a page that was
given away, written twice or never written shows as a wrong answer.
"""

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

from minisgl.engine.batch import Batch
from minisgl.kvcache.naive import NaivePrefixCache
from minisgl.kvcache.radix import RadixPrefixCache
from minisgl.messages import DecodeParams, Finish, Generate, SamplingParams
from minisgl.scheduler.driver import unpack
from minisgl.scheduler.scheduler import Scheduler, SchedulerConfig

VOCAB, EOS = 50, 49


def next_token(history: list[int]) -> int:
    """What the fake model says after `history`; ends (EOS) about once in fifty tokens."""
    value = 7
    for token in history:
        value = (value * 31 + token + 1) % 9973
    return value % VOCAB


def answer(prompt: list[int], max_tokens: int) -> tuple[list[int], Finish]:
    """The oracle: this request alone."""
    out: list[int] = []
    while len(out) < max_tokens:
        out.append(next_token(prompt + out))
        if out[-1] == EOS:
            return out, Finish.STOP
    return out, Finish.LENGTH


class FakeEngine:
    """Slots hold the tokens that were stored there."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.size = page_size
        self.slots = np.full(num_pages * page_size, -1)

    def step(self, batch: Batch) -> NDArray[np.int32]:
        ends = np.cumsum(batch.counts)
        where = []
        for i, end in enumerate(ends.tolist()):
            positions = np.arange(batch.starts[i] + batch.counts[i])
            where.append(batch.pages[i, positions // self.size] * self.size + positions % self.size)
            written = where[i][batch.starts[i] :]
            self.slots[written] = batch.tokens[end - batch.counts[i] : end]
        everything = np.concatenate([w[s:] for w, s in zip(where, batch.starts, strict=True)])
        assert len(set(everything.tolist())) == len(everything), "two tokens were written to one slot"
        return np.array([next_token(self.slots[where[i]].tolist()) for i in batch.sampled], np.int32)


def make(
    num_pages: int = 16, page_size: int = 4, cache: str = "radix", running: int = 4, budget: int = 16
) -> tuple[Scheduler, FakeEngine]:
    config = SchedulerConfig(
        num_pages=num_pages,
        page_size=page_size,
        max_running=running,
        max_step_tokens=budget,
        context_length=num_pages * page_size,
        vocab_size=VOCAB,
        eos_token_ids=(EOS,),
    )
    caches = {"radix": RadixPrefixCache, "naive": NaivePrefixCache}
    return Scheduler(config, caches[cache](page_size), seed=0), FakeEngine(num_pages, page_size)


def generate(uid: int, prompt: list[int], max_tokens: int, **sampling: object) -> Generate:
    params = SamplingParams(max_tokens, temperature=0, **sampling)  # type: ignore[arg-type]
    return Generate(uid, np.array(prompt, np.int32).tobytes(), params, DecodeParams())


def run(scheduler: Scheduler, engine: FakeEngine) -> tuple[dict[int, list[int]], dict[int, Finish]]:
    """Step until nothing is left to do."""
    tokens: dict[int, list[int]] = {}
    ends: dict[int, Finish] = {}
    for _ in range(2000):
        if (batch := scheduler.plan()) is not None:
            scheduler.complete(batch, engine.step(batch), np.zeros(len(batch.sampled), bool))
        scheduler.check_integrity()
        for uid, token, finish in unpack(scheduler.results.take(None)):
            tokens.setdefault(uid, []).extend([token] if token >= 0 else [])
            if finish != Finish.RUNNING:
                assert uid not in ends
                ends[uid] = finish
        if not scheduler.has_work:
            return tokens, ends
    raise AssertionError("the scheduler does not come to an end")


class SchedulerMachine(RuleBasedStateMachine):
    """Any order of arrivals, steps and aborts, in a pool that is too small for all of them."""

    @initialize(
        size=st.sampled_from([1, 4, 16]),
        cache=st.sampled_from(["radix", "naive"]),
        tokens=st.integers(20, 60),
        budget=st.integers(1, 24),
    )
    def start(self, size: int, cache: str, tokens: int, budget: int) -> None:
        pages = -(-tokens // size)
        self.capacity, self.budget = pages * size, budget
        self.scheduler, self.engine = make(pages, size, cache, running=5, budget=budget)
        self.asked: dict[int, tuple[list[int], int]] = {}
        self.aborted: set[int] = set()
        self.tokens: dict[int, list[int]] = {}
        self.ends: Counter[int] = Counter()
        self.finish: dict[int, Finish] = {}
        self.opened: Counter[int] = Counter()
        self.batch: Batch | None = None

    @rule(
        prompt=st.lists(st.integers(0, 2), min_size=1, max_size=24),
        max_tokens=st.integers(1, 24),
    )
    def arrive(self, prompt: list[int], max_tokens: int) -> None:
        uid = len(self.asked)
        self.asked[uid] = (prompt, max_tokens)
        self.scheduler.add(generate(uid, prompt, max_tokens))

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        uid = data.draw(st.sampled_from(sorted(self.asked)))
        self.aborted.add(uid)
        self.scheduler.abort(uid)

    @precondition(lambda self: self.batch is None)
    @rule()
    def plan(self) -> None:
        self.batch = self.scheduler.plan()
        if self.batch is not None:
            assert 0 < len(self.batch.tokens) <= self.budget
            assert sorted(self.batch.counts.tolist()[: self.batch.num_single]) == [1] * self.batch.num_single

    @precondition(lambda self: self.batch is not None)
    @rule()
    def complete(self) -> None:
        assert self.batch is not None
        self.scheduler.complete(self.batch, self.engine.step(self.batch), np.zeros(len(self.batch.sampled), bool))
        self.batch = None

    @invariant()
    def every_page_has_one_owner_and_every_request_one_end(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        self.scheduler.check_integrity()
        step = self.scheduler.results.take(None)
        self.opened.update(opened.uid for opened in step.opened)
        for uid, token, finish in unpack(step):
            assert self.opened[uid] == 1, "the detokenizer knows the request"
            assert not self.ends[uid], "nothing comes after the end"
            self.tokens.setdefault(uid, []).extend([token] if token >= 0 else [])
            if finish != Finish.RUNNING:
                self.ends[uid] += 1
                self.finish[uid] = finish

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        if self.batch is not None:
            self.complete()
        self.every_page_has_one_owner_and_every_request_one_end()
        for _ in range(3000):
            if not self.scheduler.has_work:
                break
            self.plan()
            if self.batch is not None:
                self.complete()
            self.every_page_has_one_owner_and_every_request_one_end()
        for uid, (prompt, max_tokens) in self.asked.items():
            assert self.ends[uid] == 1
            expected, finish = answer(prompt, max_tokens)
            tokens = self.tokens.get(uid, [])
            if len(prompt) + max_tokens > self.capacity:
                assert self.finish[uid] == Finish.ERROR
            elif self.finish[uid] == Finish.ABORT:
                assert uid in self.aborted
                assert tokens == expected[: len(tokens)]
            else:
                assert (tokens, self.finish[uid]) == (expected, finish)
        stats = self.scheduler.stats()
        assert (stats.running, stats.waiting, stats.kv_used_tokens) == (0, 0, 0)


TestAnyLoad = SchedulerMachine.TestCase
TestAnyLoad.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_decoding_rows_go_first_and_prompts_are_cut_to_the_budget() -> None:
    scheduler, engine = make(num_pages=64, budget=10)
    scheduler.add(generate(0, [1], 20))
    batch = scheduler.plan()
    assert batch is not None
    scheduler.complete(batch, engine.step(batch), np.zeros(1, bool))
    scheduler.add(generate(1, [2] * 30, 5))
    batch = scheduler.plan()
    assert batch is not None
    assert batch.counts.tolist() == [1, 9]
    assert batch.sampled.tolist() == [0], "the prompt is not at its end"


def test_pages_that_run_out_are_taken_from_the_youngest() -> None:
    scheduler, engine = make(num_pages=6, page_size=4)
    for uid in range(3):
        scheduler.add(generate(uid, [uid] * 4, 12, ignore_eos=True))
    tokens, ends = run(scheduler, engine)
    assert scheduler.stats().preemptions_total > 0
    assert set(ends.values()) == {Finish.LENGTH}
    for uid in range(3):
        history = [uid] * 4
        while len(history) < 16:
            history.append(next_token(history))
        assert tokens[uid] == history[4:]


def test_equal_prompts_prefilled_together_end_with_one_set_of_pages() -> None:
    scheduler, engine = make(num_pages=16, page_size=4, budget=64)
    for uid in range(2):
        scheduler.add(generate(uid, [1, 2, 3, 4, 5, 6, 7, 8, 9], 2))
    batch = scheduler.plan()
    assert batch is not None
    assert batch.counts.tolist() == [9, 9]
    scheduler.complete(batch, engine.step(batch), np.zeros(2, bool))
    scheduler.check_integrity()
    assert scheduler.stats().kv_used_tokens == (2 + 1 + 1) * 4, "two shared pages, and each its own third one"
    tokens, _ = run(scheduler, engine)
    assert tokens[0] == tokens[1]


def test_a_prefix_is_found_again_and_reported() -> None:
    scheduler, engine = make(num_pages=16, page_size=4)
    scheduler.add(generate(0, [1, 2, 3, 4, 5], 1))
    run(scheduler, engine)
    scheduler.add(generate(1, [1, 2, 3, 4, 6], 1))
    batch = scheduler.plan()
    assert batch is not None
    assert (batch.starts.tolist(), batch.counts.tolist()) == ([4], [1])
    scheduler.complete(batch, engine.step(batch), np.zeros(1, bool))
    assert scheduler.results.take(None).opened[0].cached_tokens == 4
    stats = scheduler.stats()
    assert (stats.prefix_query_tokens_total, stats.prefix_hit_tokens_total) == (10, 4)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (generate(0, [], 1), "the prompt is empty"),
        (generate(0, [1], 0), "max_tokens is 0"),
        (generate(0, [1] * 60, 5), "more than the context of 64 tokens"),
        (generate(0, [VOCAB], 5), "outside the vocabulary of 50"),
        (generate(0, [-1], 5), "outside the vocabulary of 50"),
    ],
)
def test_a_request_that_can_never_run_ends_with_a_sentence(message: Generate, sentence: str) -> None:
    scheduler, _ = make()
    scheduler.add(message)
    step = scheduler.results.take(None)
    assert unpack(step) == [(0, -1, Finish.ERROR)]
    assert sentence in step.errors[0]
    assert not scheduler.has_work


def test_a_row_without_usable_logits_ends_alone_and_its_pages_are_not_reused() -> None:
    scheduler, engine = make(budget=64)
    scheduler.add(generate(0, [1] * 8, 4))
    scheduler.add(generate(1, [2] * 8, 4))
    batch = scheduler.plan()
    assert batch is not None
    scheduler.complete(batch, engine.step(batch), np.array([True, False]))
    step = scheduler.results.take(None)
    assert [finish for _, _, finish in unpack(step)] == [Finish.ERROR, Finish.RUNNING]
    assert "NaN" in step.errors[0]
    assert scheduler.stats().kv_cached_tokens == 0
    scheduler.check_integrity()
    following = scheduler.plan()
    assert following is not None
    assert sorted(following.scrub.tolist()) == sorted(batch.pages[0].tolist()), "every rank clears them first"


def test_stop_ids_and_end_tokens_end_a_request_unless_it_ignores_them() -> None:
    alone, _ = answer([3, 4], 10)
    scheduler, engine = make()
    scheduler.add(generate(0, [3, 4], 10, stop_token_ids=(alone[2],)))
    tokens, ends = run(scheduler, engine)
    assert (tokens[0], ends[0]) == (alone[: alone.index(alone[2]) + 1], Finish.STOP)


def test_when_the_engine_dies_every_request_hears_of_it() -> None:
    scheduler, _ = make(running=1)
    for uid in range(3):
        scheduler.add(generate(uid, [1], 5))
    assert scheduler.plan() is not None
    scheduler.fail_all("the engine is gone")
    step = scheduler.results.take(None)
    assert [row[2] for row in unpack(step)] == [Finish.ERROR] * 3
    assert set(step.errors.values()) == {"the engine is gone"}
    scheduler.check_integrity()


def test_a_batch_survives_its_way_to_another_rank() -> None:
    scheduler, _ = make()
    scheduler.add(generate(0, [1, 2, 3], 5))
    batch = scheduler.plan()
    assert batch is not None
    copy = Batch.unpack(batch.pack())
    for name, array in vars(batch).items():
        np.testing.assert_array_equal(getattr(copy, name), array)
        assert getattr(copy, name).dtype == array.dtype, name


def bookkeeping_seconds(running: int) -> float:
    """The quickest of some decode steps with so many requests, engine left out."""
    scheduler, _ = make(num_pages=2000, page_size=16, running=running, budget=8192)
    for uid in range(running):
        scheduler.add(generate(uid, [uid % VOCAB, uid // VOCAB, 3], 100, ignore_eos=True))
    seconds = []
    for _ in range(60):
        began = time.perf_counter()
        batch = scheduler.plan()
        assert batch is not None
        scheduler.complete(batch, np.zeros(running, np.int32), np.zeros(running, bool))
        scheduler.results.take(scheduler.stats())
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def test_a_decode_step_of_256_requests_costs_no_loop_over_them() -> None:
    assert bookkeeping_seconds(256) < 8 * bookkeeping_seconds(8), "32 times the requests; a loop over them shows"
