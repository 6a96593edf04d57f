"""Two operators at once: the holder of the Lease writes, and nobody else."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from control_plane.process import QUICK
from control_plane.proxy import Call, Fault, Proxy
from control_plane.stage import ALWAYS, Stage

BRIEF = QUICK | {
    "lease.RENEW_SECONDS": 0.3,
    "lease.GIVE_UP_SECONDS": 1.4,
    "lease.LEASE_SECONDS": 2,
    "lease.ATTEMPT_SECONDS": 0.5,
}
TAKE_OVER_SECONDS = 15


@pytest.fixture
def other(stage: Stage) -> Iterator[Proxy]:
    """The second operator's own way to the server."""
    proxy = Proxy(stage.plane.url)
    proxy.start()
    yield proxy
    proxy.stop()


@pytest.fixture(autouse=True)
def no_lease_before(stage: Stage) -> None:
    """Leases lie in the operators' own namespace, which all tests share: each has a name of its own."""
    stage.plane.allow_lease(stage.namespace)


def start_both(stage: Stage, other: Proxy, changes: dict[str, object]) -> None:
    """Start both; the first holds the Lease."""
    lease = {"lease_namespace": "minisgl-system", "lease_name": stage.namespace}
    stage.start(changes=changes, identity="a", **lease)
    stage.until("the first holds it", lambda: holder(stage) == "a")
    stage.start(changes=changes, identity="b", proxy=other, **lease)
    stage.until("the second looks", lambda: any("/leases" in call.path for call in list(other.calls)))


def holder(stage: Stage) -> str:
    path = "/apis/coordination.k8s.io/v1/namespaces/minisgl-system/leases"
    found = {item["metadata"]["name"]: item["spec"] for item in stage.admin.call("GET", path)["items"]}
    return str(found.get(stage.namespace, {}).get("holderIdentity", ""))


def test_only_the_holder_writes_and_a_killed_one_is_replaced_in_time(stage: Stage, other: Proxy) -> None:
    start_both(stage, other, dict(QUICK))
    stage.create("m")
    stage.until_reason("m", "Starting")
    assert other.writes == []
    stage.operators[0].kill()
    stage.edit("m", runtime={"pageSize": 64})
    stage.until("the second holds it", lambda: holder(stage) == "b", within=TAKE_OVER_SECONDS)
    stage.until("it acts", lambda: other.writes, within=5)
    stage.until_reason("m", "Starting")


def test_one_that_is_told_to_end_hands_over_at_once(stage: Stage, other: Proxy) -> None:
    start_both(stage, other, dict(QUICK))
    stage.operators[0].signal(signal.SIGTERM)
    stage.until("the second holds it", lambda: holder(stage) == "b", within=5)
    assert stage.operators[0].wait() == 0


def test_one_that_was_stopped_in_mid_work_writes_nothing_when_it_goes_on(stage: Stage, other: Proxy) -> None:
    def rule(call: Call) -> Fault | None:
        first = stage.operators[0]
        return Fault(before=lambda: first.signal(signal.SIGSTOP)) if call.number == 2 else None

    stage.proxy.rule = rule
    start_both(stage, other, BRIEF)
    stage.create("m")
    stage.until("the second holds it", lambda: holder(stage) == "b")
    stage.until_reason("m", "Starting")
    before = stage.versions("m")
    stage.operators[0].signal(signal.SIGCONT)
    lease_calls = len(stage.proxy.calls)
    stage.until("the first looks again", lambda: len(stage.proxy.calls) > lease_calls + 10)
    assert len(stage.proxy.writes) == 2
    assert stage.versions("m") == before
    assert holder(stage) == "b"


def test_a_holder_that_cannot_reach_the_server_is_quiet_before_the_other_begins(stage: Stage, other: Proxy) -> None:
    start_both(stage, other, BRIEF)
    stage.create("m")
    stage.until_reason("m", "Starting")
    stage.proxy.rule = lambda call: Fault(status=503) if "/leases" in call.path else None
    stage.until("the second holds it", lambda: holder(stage) == "b")
    stage.edit("m", runtime={"pageSize": 64})
    stage.until("the second acts", lambda: other.writes)
    stage.until_reason("m", "Starting")
    assert max(call.at for call in stage.proxy.writes) < min(call.at for call in other.writes)
    assert set(stage.created()) >= set(ALWAYS)
    assert set(stage.created().values()) == {1}
