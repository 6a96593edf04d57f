"""What a step takes of prompts: as many tokens as fit, fewer of them far behind a prompt's begin."""

import pytest

from minisgl.scheduler.budget import Ask, Budget
from minisgl.scheduler.scheduler import Scheduler
from support.fake_engine import Loop, generate, make

STEP, EVEN, SPARE = 128, 7680, 69


def take(budget: Budget, past: int, wanted: int, priority: int = 0) -> int:
    ask = Ask(past, wanted, priority)
    count = budget.affordable(ask)
    budget.pay(ask, count)
    return count


def take_alone(budget: Budget, past: int, wanted: int) -> int:
    """Nobody else asks."""
    count = take(budget, past, wanted)
    return count + take(budget, past + count, wanted - count) if budget.offer_rest() else count


@pytest.mark.parametrize(("past", "tokens"), [(0, 128), (128, 128), (4000, 128), (8000, 97), (40_000, 32), (10**7, 1)])
def test_tokens_far_behind_a_prompts_begin_cost_more(past: int, tokens: int) -> None:
    budget = Budget(STEP, EVEN)
    budget.begin(0)
    assert take_alone(budget, past, 10**6) == tokens
    assert budget.left < 40, "the step is spent, but for what may be left unread"


def test_what_is_left_over_is_for_the_next_prompt() -> None:
    budget = Budget(STEP, EVEN)
    budget.begin(28)
    assert take(budget, 7808, 20) == 20
    assert budget.left == 100 - 20, "what it costs beyond is within the quarter"
    assert take(budget, 7808, 80) == (80 + SPARE - 20) // 2 == 64
    assert budget.left == 80 - 64 - (64 - (SPARE - 20))
    assert take(budget, 0, 120) == 1
    assert take(budget, 0, 120) == take(budget, 5000, 120) == 0


def test_a_step_without_a_measure_counts_tokens() -> None:
    budget = Budget(STEP, None)
    budget.begin(8)
    assert take_alone(budget, 10**6, 500) == 120
    assert budget.left == 0


def test_one_token_goes_on_however_dear_it_is_and_the_next_step_begins_anew() -> None:
    budget = Budget(STEP, 10)
    budget.begin(127)
    assert take(budget, 5000, 9) == 1
    assert budget.left < 0
    assert take(budget, 0, 9) == 0
    budget.begin(0)
    assert budget.left == STEP


def test_a_long_prompt_leaves_half_of_a_step_to_shorter_ones() -> None:
    budget = Budget(STEP, None)
    budget.begin(28)
    asked = [(0, 8000), (0, 20), (0, 3000), (100, 70)]  # in the order of their turns
    assert [take(budget, *ask) for ask in asked] == [50, 20, 0, 30]
    assert not budget.offer_rest(), "nothing is left"
    budget.begin(28)
    assert [take(budget, *ask) for ask in asked[:3]] == [50, 20, 0]
    assert budget.offer_rest()
    assert [take(budget, 50, 7950), take(budget, 0, 3000)] == [30, 0], "it is offered by turn again"
    assert not budget.offer_rest(), "once"


def test_what_a_long_prompt_leaves_is_not_for_lower_priorities() -> None:
    budget = Budget(STEP, None)
    budget.begin(0)
    assert [take(budget, 0, 8000, 1), take(budget, 0, 20, 0), take(budget, 0, 30, 1)] == [64, 0, 30]
    assert budget.offer_rest()
    assert [take(budget, 64, 7936, 1), take(budget, 0, 20, 0)] == [34, 0]


def test_a_prompt_that_ends_in_a_step_takes_what_there_is_and_a_rest_is_not_cut_up() -> None:
    budget = Budget(STEP, None)
    budget.begin(28)
    assert [take(budget, 0, 100), take(budget, 0, 20)] == [100, 0]
    assert not budget.offer_rest()
    budget.begin(28)
    assert [take(budget, 0, 60), take(budget, 0, 500), take(budget, 0, 20)] == [60, 40, 0]
    assert not budget.offer_rest()


@pytest.mark.parametrize("even", [None, 64])
def test_a_long_prompt_is_read_in_chunks_that_shrink(even: int | None) -> None:
    scheduler, engine = make(num_pages=256, page_size=4, budget=16, even=even)
    loop, chunks = Loop(scheduler, engine), []
    scheduler.add(generate(1, [2 + i % 5 for i in range(600)], 1))
    while scheduler.has_work:
        if (batch := loop.step()) is not None:
            chunks.append(int(batch.counts.sum()))
    assert sum(chunks) == 600
    assert chunks[:2] == [16, 16]
    if even is None:
        assert set(chunks[:-1]) == {16}
    else:
        assert sorted(chunks, reverse=True) == chunks
        assert chunks[-2] == 5, "with 570 tokens beyond a step's: (16 + 41) * 64 // 634"


def test_beside_a_long_prompt_short_ones_and_running_requests_go_on() -> None:
    scheduler, engine = make(num_pages=512, page_size=4, running=8, budget=16, even=16)
    loop = Loop(scheduler, engine, overlap=True)
    scheduler.add(generate(1, [2 + i % 5 for i in range(900)], 1))
    for uid in range(2, 6):
        scheduler.add(generate(uid, [uid] * 40, 30))
    loop.run()
    assert not loop.errors
    assert len(loop.ends) == 5


def read(scheduler: Scheduler, loop: Loop, uid: int) -> int:
    """Steps until a request has been read."""
    for steps in range(1, 1000):
        loop.step()
        if loop.tokens.get(uid):
            return steps
    raise AssertionError("never")


def test_a_short_prompt_does_not_wait_until_a_long_one_is_read() -> None:
    scheduler, engine = make(num_pages=1024, page_size=4, running=8, budget=16)
    loop = Loop(scheduler, engine)
    for uid in (1, 2):
        scheduler.add(generate(uid, [2 + i % 5 for i in range(900 + uid)], 1))
    for _ in range(5):
        loop.step()
    scheduler.add(generate(3, [9] * 20, 3))
    assert read(scheduler, loop, 3) == 3, "eight of its tokens a step, of 16"
    loop.run()
    assert not loop.errors
    assert len(loop.ends) == 3


def test_long_prompts_are_read_one_after_the_other() -> None:
    scheduler, engine = make(num_pages=1024, page_size=4, running=8, budget=16)
    loop, ended = Loop(scheduler, engine), {}
    for uid in (1, 2, 3):
        scheduler.add(generate(uid, [uid] * 320, 1))
    for steps in range(1, 100):
        loop.step()
        for uid in loop.ends:
            ended.setdefault(uid, steps)
        if len(ended) == 3:
            break
    assert [ended[uid] for uid in (1, 2, 3)] == [20, 40, 60], "as without sharing: 320 tokens, 16 a step"
