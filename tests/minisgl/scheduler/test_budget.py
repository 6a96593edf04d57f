"""What a step takes of prompts: as many tokens as fit, fewer of them far behind a prompt's begin."""

import pytest

from minisgl.scheduler.budget import Budget
from support.fake_engine import Loop, generate, make

STEP, EVEN, SPARE = 128, 7680, 69


@pytest.mark.parametrize(("past", "tokens"), [(0, 128), (128, 128), (4000, 128), (8000, 97), (40_000, 31), (10**7, 1)])
def test_tokens_far_behind_a_prompts_begin_cost_more(past: int, tokens: int) -> None:
    budget = Budget(STEP, EVEN)
    budget.begin(0)
    assert budget.affordable(past, 10**6) == tokens
    budget.pay(past, tokens)
    assert budget.left < 40, "the step is spent, but for what may be left unread"


def test_what_is_left_over_is_for_the_next_prompt() -> None:
    budget = Budget(STEP, EVEN)
    budget.begin(28)
    assert budget.affordable(7808, 20) == 20
    budget.pay(7808, 20)
    assert budget.left == 100 - 20, "what it costs beyond is within the quarter"
    assert budget.affordable(7808, 500) == (80 + SPARE - 20) // 2
    budget.pay(7808, 64)
    assert budget.left == 80 - 64 - (64 - (SPARE - 20))
    assert budget.affordable(0, 500) == 1
    budget.pay(0, 1)
    assert budget.affordable(0, 500) == budget.affordable(5000, 500) == 0


def test_a_step_without_a_measure_counts_tokens() -> None:
    budget = Budget(STEP, None)
    budget.begin(8)
    assert budget.affordable(10**6, 500) == 120
    budget.pay(10**6, 120)
    assert budget.left == 0


def test_one_token_goes_on_however_dear_it_is_and_the_next_step_begins_anew() -> None:
    budget = Budget(STEP, 10)
    budget.begin(127)
    assert budget.affordable(5000, 9) == 1
    budget.pay(5000, 1)
    assert budget.left < 0
    assert budget.affordable(0, 9) == 0
    budget.begin(0)
    assert budget.left == STEP


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
