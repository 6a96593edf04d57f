"""What breaks another engine of this line, played against ours: one test per defect, with overlap and without."""

from collections.abc import Callable

import numpy as np
import pytest

from minisgl.messages import Finish
from support.fake_engine import EOS, Loop, answer, generate, make

pytestmark = pytest.mark.parametrize("overlap", [False, True], ids=["plain", "overlap"])


def loop_of(overlap: bool, **options: int) -> Loop:
    scheduler, engine = make(**options)  # type: ignore[arg-type]
    return Loop(scheduler, engine, overlap=overlap)


def prompt_that_ends_after(count: int) -> list[int]:
    """A prompt whose answer is `count` tokens long, the last one EOS."""
    for first in range(49):
        for second in range(49):
            tokens, finish = answer([first, second], count)
            if finish == Finish.STOP and len(tokens) == count:
                return [first, second]
    raise AssertionError("no such prompt")


def test_duplicate_prompts_prefilled_together_keep_their_pages(overlap: bool) -> None:
    """Defect 1: the second one's duplicate pages were freed under it."""
    loop = loop_of(overlap, num_pages=16, budget=64)
    for uid in range(3):
        loop.scheduler.add(generate(uid, [7] * 12, 8, ignore_eos=True))
    loop.step()
    loop.scheduler.add(generate(9, list(range(20)), 4, ignore_eos=True))  # takes what was freed
    loop.run()
    assert [loop.tokens[uid] for uid in range(3)] == [answer([7] * 12, 8, ignore_eos=True)[0]] * 3


@pytest.mark.parametrize("cached", [False, True], ids=["fresh", "prefix-hit"])
def test_an_abort_while_the_prefill_is_in_flight(overlap: bool, cached: bool) -> None:
    """Defect 2: the prompt was given to the cache twice."""
    loop = loop_of(overlap)
    if cached:
        loop.scheduler.add(generate(0, [1] * 12, 1))
        loop.run()
    loop.scheduler.add(generate(1, [1] * 14, 4))
    assert loop.plan() is not None
    loop.scheduler.abort(1)
    loop.take()
    assert loop.ends[1] == Finish.ABORT, "at once, not after the step"
    loop.run()
    assert not loop.scheduler.has_work


def test_an_abort_in_the_step_that_brings_the_end_frees_the_row_once(overlap: bool) -> None:
    """Defect 3: two later requests shared a row."""
    loop = loop_of(overlap, running=2)
    prompt = prompt_that_ends_after(2)
    loop.scheduler.add(generate(0, prompt, 5))
    while len(loop.tokens.get(0, [])) < 1:
        loop.step()
    if not loop.flying:
        loop.plan()
    loop.scheduler.abort(0)
    loop.scheduler.abort(0)
    for uid in (1, 2):
        loop.scheduler.add(generate(uid, [uid, uid], 6, ignore_eos=True))
    loop.run()
    assert loop.ends[0] == Finish.ABORT
    for uid in (1, 2):
        assert loop.tokens[uid] == answer([uid, uid], 6, ignore_eos=True)[0]


def test_a_row_is_not_reused_while_a_step_in_flight_writes_to_it(overlap: bool) -> None:
    """Defect 4: the step after the end token wrote into the next request's prompt."""
    loop = loop_of(overlap, running=1, num_pages=8)
    loop.scheduler.add(generate(0, prompt_that_ends_after(3), 9))
    loop.scheduler.add(generate(1, [5, 6, 7, 8, 9], 5, ignore_eos=True))
    loop.run()
    assert loop.ends[0] == Finish.STOP
    assert loop.tokens[1] == answer([5, 6, 7, 8, 9], 5, ignore_eos=True)[0]


def test_the_order_of_a_batch_depends_on_nothing_but_its_requests(overlap: bool) -> None:
    """Defect 5: a set's order, different on each rank."""

    def rows() -> list[list[int]]:
        loop = loop_of(overlap)
        for uid in (5, 3, 8, 1):
            loop.scheduler.add(generate(uid, [uid], 6, ignore_eos=True))
        batches = []
        while loop.scheduler.has_work:
            if (batch := loop.step()) is not None:
                batches.append(batch.rows.tolist())
        return batches

    assert rows() == rows()


def test_admission_counts_whole_pages(overlap: bool) -> None:
    """Defect 6: three pages, two requests of 17 tokens each."""
    loop = loop_of(overlap, num_pages=3, page_size=16, budget=64)
    for uid in range(2):
        loop.scheduler.add(generate(uid, [uid] * 17, 4, ignore_eos=True))
    loop.run()
    for uid in range(2):
        assert loop.tokens[uid] == answer([uid] * 17, 4, ignore_eos=True)[0]


@pytest.mark.parametrize("max_tokens", [-1, 2**31, 2**63 - 1])
def test_no_number_of_tokens_ends_more_than_its_request(overlap: bool, max_tokens: int) -> None:
    """Defects 13 and 16: an assertion ended the process, or the request was dropped without a word."""
    loop = loop_of(overlap)
    loop.scheduler.add(generate(0, [1, 2], max_tokens))
    loop.scheduler.add(generate(1, [1, 2], 3, ignore_eos=True))
    loop.run()
    assert loop.ends == {0: Finish.ERROR, 1: Finish.LENGTH}
    assert "max_tokens" in loop.errors[0]


def test_an_empty_prompt_ends_with_a_sentence(overlap: bool) -> None:
    """Defect 14."""
    loop = loop_of(overlap)
    loop.scheduler.add(generate(0, [], 3))
    loop.run()
    assert "prompt is empty" in loop.errors[0]


def test_nothing_comes_after_the_end(overlap: bool) -> None:
    """Defect 20: the step after the end token opened the detokenizer's state again. `Loop.take` checks it."""
    loop = loop_of(overlap)
    for uid in range(20):
        loop.scheduler.add(generate(uid, [uid], 30))
    loop.run()
    assert Finish.STOP in loop.ends.values()
    assert all(tokens[-1] == EOS for uid, tokens in loop.tokens.items() if loop.ends[uid] == Finish.STOP)


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
def test_a_fault_in_one_row_harms_no_other(overlap: bool, late: bool) -> None:
    """Unusable logits in the middle of a run (reliability: A19)."""
    scheduler, engine = make(num_pages=32, late=late)
    loop = Loop(scheduler, engine, overlap=overlap)
    for uid in range(3):
        scheduler.add(generate(uid, [uid] * 5, 9, ignore_eos=True))
    while len(loop.tokens.get(1, [])) < 3:
        loop.step()
    engine.failing = {1}
    loop.step()
    loop.step()
    engine.failing = set()
    loop.run()
    assert loop.ends == {0: Finish.LENGTH, 1: Finish.ERROR, 2: Finish.LENGTH}
    for uid in (0, 2):
        assert loop.tokens[uid] == answer([uid] * 5, 9, ignore_eos=True)[0]


def test_64_requests_that_want_most_of_the_cache_all_end_as_if_alone(overlap: bool) -> None:
    """Reliability: A20. Each needs 80% of the pages; they are preempted or wait, none starves."""
    loop = loop_of(overlap, num_pages=20, page_size=1, running=8, budget=16)
    for uid in range(64):
        loop.scheduler.add(generate(uid, [uid % 49, uid // 49, 3], 13, ignore_eos=True))
    loop.run(20_000)
    for uid in range(64):
        assert loop.tokens[uid] == answer([uid % 49, uid // 49, 3], 13, ignore_eos=True)[0]


class TestTurns:
    """Who goes first, and who may be overtaken."""

    def first_steps(self, loop: Loop) -> list[int]:
        """Uids in the order of their first token."""
        loop.run()
        return list(loop.tokens)

    def test_equals_go_in_order_of_arrival_and_priority_goes_first(self, overlap: bool) -> None:
        loop = loop_of(overlap, running=1)
        for uid, priority in enumerate([0, 0, 5, -1, 5]):
            loop.scheduler.add(generate(uid, [uid], 2, priority, ignore_eos=True))
        assert self.first_steps(loop) == [2, 4, 0, 1, 3]

    def test_one_that_waits_for_pages_does_not_block_those_that_fit(self, overlap: bool) -> None:
        loop = loop_of(overlap, num_pages=8, page_size=4, running=4, budget=64)
        loop.scheduler.add(generate(0, [0] * 12, 10, ignore_eos=True))
        loop.step()
        loop.scheduler.add(generate(1, [1] * 24, 2, ignore_eos=True))  # finds no pages beside the first
        loop.scheduler.add(generate(2, [2], 2, ignore_eos=True))
        assert self.first_steps(loop) == [0, 2, 1]

    def test_one_that_waits_for_pages_is_not_overtaken_for_ever(self, overlap: bool) -> None:
        loop = loop_of(overlap, num_pages=8, page_size=4, running=2, budget=64)
        loop.scheduler.add(generate(0, [9] * 4, 12, ignore_eos=True))
        loop.step()
        loop.scheduler.add(generate(1, [1] * 28, 2, ignore_eos=True))
        for uid in range(2, 500):  # one after the other, each as small as can be
            loop.scheduler.add(generate(uid, [uid % 49], 3, ignore_eos=True))
        assert self.first_steps(loop).index(1) < 80

    def test_a_request_can_be_larger_than_all_that_is_free_now(self, overlap: bool) -> None:
        loop = loop_of(overlap, num_pages=8, page_size=4, running=4, budget=64)
        for uid in range(6):
            loop.scheduler.add(generate(uid, [uid] * 20, 12, ignore_eos=True))
        loop.run()
        for uid in range(6):
            assert loop.tokens[uid] == answer([uid] * 20, 12, ignore_eos=True)[0]


def test_overlap_changes_no_token(overlap: bool, trace: Callable[[bool], dict[int, list[int]]]) -> None:
    assert trace(overlap) == trace(not overlap)


@pytest.fixture
def trace() -> Callable[[bool], dict[int, list[int]]]:
    """The answers to one random load."""

    def run(overlap: bool) -> dict[int, list[int]]:
        random = np.random.default_rng(4)
        loop = loop_of(overlap, num_pages=12, page_size=4, running=6, budget=20)
        for uid in range(80):
            prompt = random.integers(0, 49, random.integers(1, 30)).tolist()
            loop.scheduler.add(generate(uid, prompt, int(random.integers(1, 15))))
            if random.random() < 0.5:
                loop.step()
        loop.run()
        return loop.tokens

    return run
