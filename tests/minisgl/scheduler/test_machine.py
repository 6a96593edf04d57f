"""The scheduler under any order of arrivals, steps and aborts, in a pool that is too small for all of them.

Invariants after every move: each page has one owner or is shared through the tree, reference counts agree, every
request has one end, nothing comes after it, and the slots that a step reads hold the tokens of its own request.
"""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from minisgl.messages import Finish
from support.fake_engine import Loop, answer, generate, make

STEPS, EXAMPLES = 50, 100  # 5,000 moves in each run


class SchedulerMachine(RuleBasedStateMachine):
    """Plans and completions interleave freely, with at most two steps in flight where `overlap`."""

    @initialize(
        size=st.sampled_from([1, 4, 16, 64]),
        cache=st.sampled_from(["radix", "naive"]),
        tokens=st.integers(20, 60),
        budget=st.integers(1, 24),
        overlap=st.booleans(),
        late=st.booleans(),
        even=st.sampled_from([None, 1, 8]),
    )
    def start(
        self, size: int, cache: str, tokens: int, budget: int, overlap: bool, late: bool, even: int | None
    ) -> None:
        pages = max(2, -(-tokens // size))
        self.capacity, self.budget = pages * size, budget
        scheduler, engine = make(pages, size, cache, running=5, budget=budget, late=late, even=even)
        self.loop = Loop(scheduler, engine, overlap=overlap)
        self.asked: dict[int, tuple[list[int], int]] = {}
        self.aborted: set[int] = set()
        self.opened: Counter[int] = Counter()

    @rule(
        prompt=st.lists(st.integers(0, 2), min_size=1, max_size=24),
        max_tokens=st.integers(1, 24),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
    )
    def arrive(self, prompt: list[int], max_tokens: int, priority: int) -> None:
        uid = len(self.asked)
        self.asked[uid] = (prompt, max_tokens)
        self.loop.scheduler.add(generate(uid, prompt, max_tokens, priority))

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        uid = data.draw(st.sampled_from(sorted(self.asked)))
        self.aborted.add(uid)
        self.loop.scheduler.abort(uid)

    @precondition(lambda self: len(self.loop.flying) < (2 if self.loop.overlap else 1))
    @rule()
    def plan(self) -> None:
        batch = self.loop.plan()
        if batch is not None:
            assert 0 < len(batch.tokens) <= self.budget
            assert sorted(batch.counts.tolist()[: batch.num_single]) == [1] * batch.num_single

    @precondition(lambda self: self.loop.flying)
    @rule()
    def complete(self) -> None:
        self.loop.complete()

    @invariant()
    def every_page_has_one_owner_and_every_request_one_end(self) -> None:
        if hasattr(self, "loop"):
            self.loop.take()

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        while self.loop.flying:
            self.complete()
        self.loop.take()
        if self.loop.scheduler.has_work:
            self.loop.run()
        for uid, (prompt, max_tokens) in self.asked.items():
            finish, tokens = self.loop.ends[uid], self.loop.tokens.get(uid, [])
            expected = answer(prompt, max_tokens)
            if len(prompt) + max_tokens > self.capacity:
                assert finish == Finish.ERROR
            elif finish == Finish.ABORT:
                assert uid in self.aborted
                assert tokens == expected[0][: len(tokens)]
            else:
                assert (tokens, finish) == expected
        stats = self.loop.scheduler.stats()
        assert (stats.running, stats.waiting, stats.kv_used_tokens) == (0, 0, 0)


TestAnyLoad = SchedulerMachine.TestCase
TestAnyLoad.settings = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None)
