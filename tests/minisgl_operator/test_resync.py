"""What is not settled is offered: once per period, soon after the watches listed anew, and in doubt everything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from minisgl_operator.api import Key
from minisgl_operator.errors import Forbidden, Unavailable
from minisgl_operator.metrics import Metrics
from minisgl_operator.queue import Queue
from minisgl_operator.resync import LISTED_SECONDS, Resync
from minisgl_operator.snapshot import Snapshot
from support import virtual_time
from support.fake_cluster import FakeCluster

PERIOD = 300


class Recorder(Queue):
    """A queue that nobody works on."""

    def __init__(self) -> None:
        self.keys: list[Key] = []

    def offer(self, key: Key, *, urgent: bool = False) -> None:
        self.keys.append(key)


class Stage:
    """Three models, of which `b` has something to do."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        for name in ("a", "b", "c"):
            self.cluster.create_model(name)
        self.queue = Recorder()
        self.num_looks = 0
        self.known: list[Key] = []
        self.resync = Resync(self.cluster, self.queue, Metrics(), PERIOD, self._is_settled, lambda: self.known)

    async def _is_settled(self, key: Key, snapshot: Snapshot) -> bool:
        self.num_looks += 1
        return key.name != "b"


def play(scene: Callable[[Stage], Awaitable[None]]) -> None:
    async def run() -> None:
        await scene(Stage())

    virtual_time.run(run())


def test_only_what_is_not_settled_is_offered() -> None:
    async def scene(stage: Stage) -> None:
        assert await stage.resync.once()
        assert stage.queue.keys == [Key("ns", "b")]

    play(scene)


def test_a_model_whose_end_no_event_told_is_offered_so_that_it_is_forgotten() -> None:
    async def scene(stage: Stage) -> None:
        stage.known = [Key("ns", "a"), Key("ns", "gone")]
        assert await stage.resync.once()
        assert stage.queue.keys == [Key("ns", "gone"), Key("ns", "b")]

    play(scene)


def test_without_a_right_to_list_a_kind_every_model_is_offered() -> None:
    async def scene(stage: Stage) -> None:
        stage.cluster.fail["list everything"] = Forbidden("list services", 403, "no")
        assert await stage.resync.once()
        assert {key.name for key in stage.queue.keys} == {"a", "b", "c"}

    play(scene)


def test_an_outage_is_told_and_offers_nothing() -> None:
    async def scene(stage: Stage) -> None:
        for call in ("list everything", "list models"):
            stage.cluster.fail[call] = Unavailable(call, 503, "down")
        assert not await stage.resync.once()
        assert stage.queue.keys == []

    play(scene)


def test_it_looks_once_per_period_and_once_after_a_burst_of_lists() -> None:
    async def scene(stage: Stage) -> None:
        running = asyncio.create_task(stage.resync.run())
        await asyncio.sleep(PERIOD * 2.5)
        assert stage.num_looks == 3 * 3
        for _ in range(1000):
            stage.resync.soon()
        await asyncio.sleep(LISTED_SECONDS + 0.1)
        assert stage.num_looks == 4 * 3
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    play(scene)
