"""One model at a time, bursts count once, failures wait, and one poisoned model does not hold up the others."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from minisgl_operator import queue as queue_module
from minisgl_operator.api import Key
from minisgl_operator.errors import Unavailable
from minisgl_operator.metrics import Metrics
from minisgl_operator.queue import Queue

A, B = Key("ns", "a"), Key("ns", "b")


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(queue_module, "FIRST_RETRY_SECONDS", 0.02)


def play(work: Callable[[Key], Awaitable[float | None]], scene: Callable[[Queue], Awaitable[None]]) -> None:
    """Run the queue with 4 workers while `scene` offers keys."""

    async def stage() -> None:
        queue = Queue(work, Metrics())
        running = asyncio.create_task(queue.run(4))
        await scene(queue)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(stage())


def test_events_during_a_reconcile_lead_to_exactly_one_more() -> None:
    runs: Counter[Key] = Counter()
    inside: Counter[Key] = Counter()

    async def work(key: Key) -> None:
        inside[key] += 1
        assert inside[key] == 1, "a model is reconciled twice at once"
        await asyncio.sleep(0.03)
        inside[key] -= 1
        runs[key] += 1

    async def scene(queue: Queue) -> None:
        queue.offer(A)
        await asyncio.sleep(0.01)
        for _ in range(50):
            queue.offer(A)
        await asyncio.sleep(0.2)

    play(work, scene)
    assert runs[A] == 2


def test_a_burst_before_the_first_run_counts_once() -> None:
    runs: Counter[Key] = Counter()

    async def work(key: Key) -> None:
        runs[key] += 1

    async def scene(queue: Queue) -> None:
        for _ in range(50):
            queue.offer(A)
        await asyncio.sleep(0.05)

    play(work, scene)
    assert runs[A] == 1


def test_different_models_run_side_by_side() -> None:
    together = asyncio.Event()
    inside = 0

    async def work(key: Key) -> None:
        nonlocal inside
        inside += 1
        if inside == 2:
            together.set()
        await asyncio.wait_for(together.wait(), 1)

    async def scene(queue: Queue) -> None:
        queue.offer(A)
        queue.offer(B)
        await asyncio.wait_for(together.wait(), 1)

    play(work, scene)


@pytest.mark.parametrize("error", [Unavailable("get", 503, "down"), ValueError("a bug")])
def test_a_failure_is_retried_with_growing_pauses_and_events_do_not_shorten_them(error: Exception) -> None:
    times: list[float] = []

    async def work(key: Key) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) < 4:
            raise error

    async def scene(queue: Queue) -> None:
        for _ in range(40):
            queue.offer(A)
            await asyncio.sleep(0.01)
            if len(times) == 4:
                break

    play(work, scene)
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(times) == 4
    assert pauses[0] >= 0.015
    assert pauses[0] < pauses[1] < pauses[2]


def test_a_poisoned_model_does_not_hold_up_the_others() -> None:
    runs: Counter[Key] = Counter()

    async def work(key: Key) -> None:
        runs[key] += 1
        if key == A:
            raise ValueError("poison")

    async def scene(queue: Queue) -> None:
        for number in range(20):
            queue.offer(A)
            queue.offer(Key("ns", f"m{number}"))
        await asyncio.sleep(0.05)

    play(work, scene)
    assert all(runs[Key("ns", f"m{number}")] == 1 for number in range(20))


def test_work_that_was_cut_short_is_done_by_the_next_run() -> None:
    """As when the Lease is lost and won again."""
    runs: list[str] = []

    async def work(key: Key) -> None:
        runs.append("begun")
        if len(runs) == 1:
            await asyncio.sleep(3600)
        runs.append("done")

    async def stage() -> None:
        queue = Queue(work, Metrics())
        queue.offer(A)
        first = asyncio.create_task(queue.run(2))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        queue.offer(B)
        second = asyncio.create_task(queue.run(2))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)

    asyncio.run(stage())
    assert runs == ["begun", "begun", "done", "begun", "done"]


def test_work_that_asks_to_come_back_runs_again_and_an_event_brings_it_forward() -> None:
    runs: Counter[Key] = Counter()

    async def work(key: Key) -> float | None:
        runs[key] += 1
        return 0.02 if runs[key] == 1 else 60.0 if runs[key] == 2 else None

    async def scene(queue: Queue) -> None:
        queue.offer(A)
        await asyncio.sleep(0.1)
        assert runs[A] == 2
        queue.offer(A)
        await asyncio.sleep(0.03)

    play(work, scene)
    assert runs[A] == 3


def test_what_is_urgent_overtakes_what_is_not_and_counts_once() -> None:
    order: list[Key] = []
    many = [Key("ns", f"m-{number}") for number in range(8)]

    async def work(key: Key) -> None:
        order.append(key)

    async def scene(queue: Queue) -> None:
        for key in many:  # nobody works before the first await
            queue.offer(key)
        queue.offer(many[-1], urgent=True)
        queue.offer(B, urgent=True)
        queue.offer(many[-1], urgent=True)
        queue.offer(many[-1])
        await asyncio.sleep(0.05)

    play(work, scene)
    assert order == [many[-1], B, *many[:-1]]


def test_changes_without_end_do_not_delay_news_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "PATIENCE_SECONDS", 0.5)
    order: list[Key] = []
    offer: list[Callable[[Key], None]] = []

    async def work(key: Key) -> None:
        order.append(key)
        await asyncio.sleep(0.001)
        offer[0](Key("ns", f"edited-{len(order)}"))

    async def scene(queue: Queue) -> None:
        offer.append(lambda key: queue.offer(key, urgent=True))
        queue.offer(B)
        for number in range(8):  # more than there are workers
            queue.offer(Key("ns", f"edited-at-once-{number}"), urgent=True)
        async with asyncio.timeout(30):
            while B not in order:  # noqa: ASYNC110 (what is awaited happens in other tasks, without a signal)
                await asyncio.sleep(0.01)

    play(work, scene)
    assert order.index(B) >= 8
