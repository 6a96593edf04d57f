"""What the scheduler decides, case by case; `test_machine` tries everything else."""

import time

import msgspec
import numpy as np
import pytest

from minisgl.engine.batch import SHARED, Batch, Sampled
from minisgl.messages import Finish, Generate
from minisgl.scheduler.driver import unpack
from support.fake_engine import EOS, VOCAB, Loop, answer, generate, make, next_token


def test_decoding_rows_go_first_and_prompts_are_cut_to_the_budget() -> None:
    scheduler, engine = make(num_pages=64, budget=10)
    scheduler.add(generate(0, [1], 20))
    batch = scheduler.plan()
    assert batch is not None
    scheduler.complete(engine.launch(batch)())
    scheduler.add(generate(1, [2] * 30, 5))
    batch = scheduler.plan()
    assert batch is not None
    assert batch.counts.tolist() == [1, 9]
    assert batch.sampled.tolist() == [0], "the prompt is not at its end"


def test_pages_that_run_out_are_taken_from_the_youngest() -> None:
    scheduler, engine = make(num_pages=6, page_size=4)
    for uid in range(3):
        scheduler.add(generate(uid, [uid] * 4, 12, ignore_eos=True))
    loop = Loop(scheduler, engine)
    loop.run()
    assert scheduler.stats().preemptions_total > 0
    assert set(loop.ends.values()) == {Finish.LENGTH}
    for uid in range(3):
        history = [uid] * 4
        while len(history) < 16:
            history.append(next_token(history))
        assert loop.tokens[uid] == history[4:]


def test_equal_prompts_prefilled_together_end_with_one_set_of_pages() -> None:
    scheduler, engine = make(num_pages=16, page_size=4, budget=64)
    for uid in range(2):
        scheduler.add(generate(uid, [1, 2, 3, 4, 5, 6, 7, 8, 9], 2))
    batch = scheduler.plan()
    assert batch is not None
    assert batch.counts.tolist() == [9, 9]
    scheduler.complete(engine.launch(batch)())
    scheduler.check_integrity()
    assert scheduler.stats().kv_used_tokens == (2 + 1 + 1) * 4, "two shared pages, and each its own third one"
    loop = Loop(scheduler, engine)
    loop.run()
    assert loop.tokens[0] == loop.tokens[1]


def test_a_prefix_is_found_again_and_reported() -> None:
    scheduler, engine = make(num_pages=16, page_size=4)
    scheduler.add(generate(0, [1, 2, 3, 4, 5], 1))
    Loop(scheduler, engine).run()
    scheduler.add(generate(1, [1, 2, 3, 4, 6], 1))
    batch = scheduler.plan()
    assert batch is not None
    assert (batch.starts.tolist(), batch.counts.tolist()) == ([4], [1])
    scheduler.complete(engine.launch(batch)())
    assert scheduler.results.take(None).opened[0].cached_tokens == 4
    stats = scheduler.stats()
    assert (stats.prefix_query_tokens_total, stats.prefix_hit_tokens_total) == (10, 4)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (generate(0, [], 1), "the prompt is empty"),
        (generate(0, [1], -1), "max_tokens is -1"),
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


def test_a_flush_forgets_what_no_request_holds() -> None:
    scheduler, engine = make(num_pages=16, page_size=4)
    scheduler.add(generate(0, [1, 2, 3, 4, 5, 6, 7, 8, 9], 1))
    Loop(scheduler, engine).run()
    scheduler.add(generate(1, [1, 2, 3, 4, 0], 9, ignore_eos=True))
    batch = scheduler.plan()
    assert batch is not None
    scheduler.flush()
    scheduler.check_integrity()
    scheduler.complete(engine.launch(batch)())
    assert scheduler.stats().kv_cached_tokens == 0, "the second page is gone, the first is held"
    Loop(scheduler, engine).run()
    scheduler.flush()
    scheduler.check_integrity()
    assert (scheduler.stats().kv_cached_tokens, scheduler.stats().kv_used_tokens) == (0, 0)
    for uid, found in ((2, 0), (3, 8)):
        scheduler.add(generate(uid, [1, 2, 3, 4, 5, 6, 7, 8, 9], 1))
        loop = Loop(scheduler, engine)
        loop.plan()
        loop.complete()
        assert scheduler.results.take(None).opened[0].cached_tokens == found


def test_a_prefix_is_found_by_requests_of_its_salt_only() -> None:
    scheduler, engine = make(num_pages=16, page_size=4)
    found = []
    for uid, salt in enumerate(["", "a", "b", "a", "", "b"]):
        scheduler.add(msgspec.structs.replace(generate(uid, [1, 2, 3, 4, 5, 6, 7, 8, 9], 3), cache_salt=salt))
        while scheduler.has_work:
            batch = scheduler.plan()
            assert batch is not None
            scheduler.complete(engine.launch(batch)())
        found.append(scheduler.results.take(None).opened[0].cached_tokens)
        scheduler.check_integrity()
    assert found == [0, 0, 0, 8, 8, 8]


def test_a_row_without_usable_logits_ends_alone_and_its_pages_are_not_reused() -> None:
    scheduler, engine = make(budget=64)
    scheduler.add(generate(0, [1] * 8, 4))
    scheduler.add(generate(1, [2] * 8, 4))
    batch = scheduler.plan()
    assert batch is not None
    engine.failing = {int(batch.rows[0])}
    scheduler.complete(engine.launch(batch)())
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
    loop = Loop(scheduler, engine)
    loop.run()
    assert (loop.tokens[0], loop.ends[0]) == (alone[: alone.index(alone[2]) + 1], Finish.STOP)


def test_before_min_tokens_nothing_ends_a_request_and_what_would_is_withheld() -> None:
    alone, _ = answer([3, 4], 10)
    scheduler, engine = make()  # it does not heed what is withheld: the scheduler must not believe it
    stops = (alone[0], alone[2], alone[4])
    scheduler.add(generate(0, [3, 4], 10, stop_token_ids=(*stops, VOCAB), min_tokens=4, logit_bias={1: 2.0}))
    loop, withheld = Loop(scheduler, engine), []
    while scheduler.has_work:
        if (batch := loop.step()) is not None and batch.sampling is not None and (asked := batch.sampling.extras):
            withheld.append(set(asked.bias_token[asked.bias < -1e6].tolist()))
    assert (loop.tokens[0], loop.ends[0]) == (alone[:5], Finish.STOP)
    assert withheld == [{*stops, EOS}] * 4 + [set()]


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
    for name in SHARED:
        np.testing.assert_array_equal(getattr(copy, name), getattr(batch, name))
        assert getattr(copy, name).dtype == getattr(batch, name).dtype == np.int32, name


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
        scheduler.complete(Sampled(np.zeros(running, np.int32), np.zeros(running, bool)))
        scheduler.results.take(scheduler.stats())
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def test_a_decode_step_of_256_requests_costs_no_loop_over_them() -> None:
    assert bookkeeping_seconds(256) < 8 * bookkeeping_seconds(8), "32 times the requests; a loop over them shows"
