"""Of several operators one acts, whatever stops the other: in virtual time, with the real seconds."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable

import pytest

from minisgl_operator.cluster import KubernetesCluster
from minisgl_operator.errors import ApiError, Conflict, Forbidden, NotFound, NotHolder, Unavailable
from minisgl_operator.lease import GIVE_UP_SECONDS, LEASE_SECONDS, RENEW_SECONDS, Lease, Step, claimed, decide
from minisgl_operator.metrics import Metrics
from minisgl_operator.objects import Child, Object
from support import virtual_time

NOW = "2026-11-24T12:00:00.000000Z"
TAKE_OVER_SECONDS = 15


class Store:
    """One Lease, with the API server's optimistic locking."""

    def __init__(self) -> None:
        self.stored: Object | None = None
        self.version = 0
        self.writes = 0

    def write(self, body: Object) -> Object:
        self.version += 1
        self.writes += 1
        self.stored = copy.deepcopy(body)
        self.stored["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.stored)


class Line:
    """One operator's connection to the store: it can be cut, hang, or refuse."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.trouble: ApiError | None = None
        self.hangs = False

    async def _call(self) -> None:
        if self.hangs:
            await asyncio.sleep(3600)
        if self.trouble:
            raise self.trouble
        await asyncio.sleep(0.01)

    async def lease(self, namespace: str, name: str) -> Object | None:
        await self._call()
        return copy.deepcopy(self.store.stored)

    async def create_lease(self, body: Object) -> Object:
        await self._call()
        if self.store.stored is not None:
            raise Conflict("create leases", 409, "exists")
        return self.store.write(body)

    async def replace_lease(self, body: Object) -> Object:
        await self._call()
        if self.store.stored is None:
            raise NotFound("update leases", 404, "gone")
        if body["metadata"]["resourceVersion"] != self.store.stored["metadata"]["resourceVersion"]:
            raise Conflict("update leases", 409, "changed")
        return self.store.write(body)


class Contender:
    """One operator. Fails the test when it acts while another does."""

    acting: set[str]

    def __init__(self, name: str, store: Store, acting: set[str]) -> None:
        self.name = name
        self.line = Line(store)
        self.metrics = Metrics()
        self.acting = acting
        self.lease = Lease(self.line, "minisgl-system", "minisgl-operator", name, self.metrics)
        self.task = asyncio.ensure_future(self.lease.run(self._act))

    async def _act(self) -> None:
        assert not self.acting, f"{self.name} acts beside {self.acting}"
        self.acting.add(self.name)
        try:
            await asyncio.sleep(3600)
        finally:
            self.acting.discard(self.name)

    async def end(self) -> None:
        """SIGTERM."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def kill(self) -> None:
        """SIGKILL: it does nothing from now on, and lets nobody know."""
        self.line.hangs = True
        self.task.cancel()
        self.acting.discard(self.name)


class Stage:
    """Two operators, the first of which holds the Lease."""

    def __init__(self) -> None:
        self.store = Store()
        self.acting: set[str] = set()

    async def rise(self) -> tuple[Contender, Contender]:
        first = Contender("a", self.store, self.acting)
        await self.until("a", 1)
        second = Contender("b", self.store, self.acting)
        await asyncio.sleep(5)
        assert self.acting == {"a"}
        return first, second

    async def until(self, name: str, seconds: float) -> float:
        """Until that operator acts; returns how long it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(seconds):
            while self.acting != {name}:  # noqa: ASYNC110 (virtual time)
                await asyncio.sleep(0.05)
        return loop.time() - began


Scene = Callable[[Stage, Contender, Contender], Awaitable[None]]


def play(scene: Scene) -> None:
    async def run() -> None:
        stage = Stage()
        first, second = await stage.rise()
        await scene(stage, first, second)
        for contender in (first, second):
            await contender.end()

    virtual_time.run(run())


def test_a_holder_that_ends_lets_the_other_in_at_its_next_look() -> None:
    async def scene(stage: Stage, first: Contender, second: Contender) -> None:
        await first.end()
        assert await stage.until("b", TAKE_OVER_SECONDS) <= RENEW_SECONDS + 0.1

    play(scene)


def test_a_killed_holder_is_replaced_within_fifteen_seconds() -> None:
    async def scene(stage: Stage, first: Contender, second: Contender) -> None:
        first.kill()
        assert await stage.until("b", TAKE_OVER_SECONDS) >= LEASE_SECONDS - RENEW_SECONDS - 0.1
        assert stage.store.stored is not None
        assert stage.store.stored["spec"]["leaseTransitions"] == 1

    play(scene)


@pytest.mark.parametrize("how", ["no answer", "an error", "no right"])
def test_a_holder_that_cannot_renew_stops_before_the_other_begins(how: str) -> None:
    async def scene(stage: Stage, first: Contender, second: Contender) -> None:
        first.line.hangs = how == "no answer"
        first.line.trouble = {
            "an error": Unavailable("get leases", 503, "down"),
            "no right": Forbidden("get leases", 403, "no"),
        }.get(how)
        await asyncio.sleep(GIVE_UP_SECONDS)
        assert stage.acting == set()
        assert not first.lease.is_held()
        await stage.until("b", TAKE_OVER_SECONDS)
        first.line.hangs, first.line.trouble = False, None
        await asyncio.sleep(60)
        assert stage.acting == {"b"}

    play(scene)


def test_a_process_that_was_stopped_may_not_write_when_it_goes_on() -> None:
    """The clock has moved on while it did nothing; no task of it has run yet."""

    async def scene(stage: Stage, first: Contender, second: Contender) -> None:
        clock = asyncio.get_running_loop()._clock  # type: ignore[attr-defined]
        assert first.lease.is_held()
        clock.now += GIVE_UP_SECONDS
        assert not first.lease.is_held()

    play(scene)


def test_a_short_outage_ends_with_the_same_holder() -> None:
    async def scene(stage: Stage, first: Contender, second: Contender) -> None:
        for line in (first.line, second.line):
            line.trouble = Unavailable("get leases", 503, "down")
        await asyncio.sleep(GIVE_UP_SECONDS - RENEW_SECONDS - 1)
        first.line.trouble = second.line.trouble = None
        await asyncio.sleep(60)
        assert stage.acting == {"a"}

    play(scene)


def test_after_a_long_outage_exactly_one_acts_again() -> None:
    async def scene(stage: Stage, first: Contender, second: Contender) -> None:
        for line in (first.line, second.line):
            line.trouble = Unavailable("get leases", 503, "down")
        await asyncio.sleep(60)
        assert stage.acting == set()
        first.line.trouble = second.line.trouble = None
        await asyncio.sleep(LEASE_SECONDS + RENEW_SECONDS)
        assert len(stage.acting) == 1

    play(scene)


def test_a_deleted_lease_is_made_again_by_one_of_them() -> None:
    async def scene(stage: Stage, first: Contender, second: Contender) -> None:
        stage.store.stored = None
        await asyncio.sleep(60)
        assert len(stage.acting) == 1

    play(scene)


def test_the_metric_tells_who_acts() -> None:
    async def scene(stage: Stage, first: Contender, second: Contender) -> None:
        def told(contender: Contender) -> float | None:
            return contender.metrics.registry.get_sample_value("minisgl_operator_is_holder")

        assert (told(first), told(second)) == (1, 0)
        first.line.hangs = True
        await stage.until("b", TAKE_OVER_SECONDS)
        assert (told(first), told(second)) == (0, 1)

    play(scene)


def test_what_the_work_raises_ends_the_operator() -> None:
    async def broken() -> None:
        raise ValueError("a bug")

    async def run() -> None:
        lease = Lease(Line(Store()), "ns", "x", "a", Metrics())
        with pytest.raises(ValueError, match="a bug"):
            await lease.run(broken)

    virtual_time.run(run())


def test_without_the_lease_no_call_that_writes_leaves_the_process() -> None:
    cluster = KubernetesCluster(None, (), Metrics())  # a call would find no client
    cluster.may_write = lambda: False
    body = {"metadata": {"namespace": "ns", "name": "m", "uid": "u", "resourceVersion": "1"}}

    async def run() -> None:
        for write in (
            cluster.apply(Child.SERVICE, body, force=True),
            cluster.apply_status(body, {}),
            cluster.event(body, "Normal", "Serving", "", NOW),
        ):
            with pytest.raises(NotHolder):
                await write

    virtual_time.run(run())


HELD_BY_B = claimed(None, "ns", "x", "b", NOW)


@pytest.mark.parametrize(
    ("stored", "unchanged", "step"),
    [
        (None, 0, Step.CREATE),
        (HELD_BY_B, LEASE_SECONDS - 0.1, Step.WAIT),
        (HELD_BY_B, LEASE_SECONDS, Step.TAKE),
        (claimed(None, "ns", "x", "", NOW), 0, Step.TAKE),
        (claimed(None, "ns", "x", "a", NOW), 99, Step.RENEW),
        ({"metadata": {}}, 0, Step.TAKE),
        ({"metadata": {}, "spec": {"holderIdentity": "b", "leaseDurationSeconds": 60}}, 59, Step.WAIT),
    ],
)
def test_a_step_follows_from_what_is_stored_and_for_how_long(
    stored: Object | None, unchanged: float, step: Step
) -> None:
    assert decide(stored, "a", unchanged) is step


def test_a_renewal_keeps_when_it_was_acquired_and_a_take_over_counts() -> None:
    stored = HELD_BY_B | {"metadata": {"resourceVersion": "7"}}
    renewed, taken = (claimed(stored, "ns", "x", who, "later") for who in ("b", "a"))
    assert (renewed["spec"]["acquireTime"], renewed["spec"]["leaseTransitions"]) == (NOW, 0)
    assert (taken["spec"]["acquireTime"], taken["spec"]["leaseTransitions"]) == ("later", 1)
    assert taken["metadata"]["resourceVersion"] == "7"
