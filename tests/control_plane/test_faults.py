"""What the way to the API server does: refuse, fail, hang, cut, lose events, show the past. Nothing of it lasts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from control_plane.process import QUICK
from control_plane.proxy import Call, Fault
from control_plane.stage import ALWAYS, Stage

NUM_WRITES = 7  # of a new model whose path names it at least: two children, Job, status, two more children, status
MODEL = re.compile(r"/(m-\d+)\b")
IMPATIENT = QUICK | {"cluster.REQUEST_TIMEOUT_SECONDS": 1.0}
NO_WATCHES = {"resync_seconds": 2}

FAULTS = {
    "409": Fault(status=409),
    "429": Fault(status=429, headers={"Retry-After": "1"}),
    "500": Fault(status=500),
    "503 that is not JSON": Fault(status=503, body=b"<html>"),
    "a reset": Fault(resets=True),
    "no answer": Fault(hangs=True),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_at_any_write_is_gone_without_a_trace(new_stage: Callable[[], Stage], fault: Fault) -> None:
    """One model for each write that fails, side by side; one more, undisturbed, says what is right."""
    stage = new_stage()
    hit: set[str] = set()
    seen: dict[str, int] = {}

    def rule(call: Call) -> Fault | None:
        found = MODEL.search(call.path)
        if call.number is None or found is None:
            return None
        name = found[1]
        seen[name] = seen.get(name, 0) + 1
        if name != "m-0" and seen[name] == int(name.removeprefix("m-")):
            hit.add(name)
            return fault
        return None

    stage.proxy.rule = rule
    stage.start(changes=IMPATIENT)
    names = [f"m-{number}" for number in range(NUM_WRITES + 1)]
    for name in names:  # each of a source of its own: else some would share an inspection
        stage.create(name, model={"source": f"pvc://models/{name}"})
    for name in names:
        stage.until_reason(name, "Starting")
    assert hit == set(names[1:])
    # Hashes are of texts that hold the name.
    right, *others = (
        re.sub(r"(-hash|'revision)': '\w+'", "", str(stage.final(name)).replace(name, "NAME")) for name in names
    )
    assert [other == right for other in others] == [True] * NUM_WRITES
    assert set(stage.created().values()) == {len(names)}
    assert [line for line in stage.operators[0].log() if line["level"] == "error"] == []


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_an_outage_of_everything_ends_with_all_done_and_the_process_alive(stage: Stage, fault: Fault) -> None:
    stage.start(changes=IMPATIENT, **NO_WATCHES)
    stage.create("before")
    stage.until_reason("before", "Starting")
    stage.proxy.rule = lambda _: fault
    for plural in ("minisglmodels", "pods", "deployments"):
        stage.proxy.break_watches(plural)
    failed = len(stage.proxy.calls)
    stage.create("meanwhile")
    stage.edit("before", runtime={"pageSize": 64})
    stage.until("calls fail", lambda: len(stage.proxy.calls) >= failed + 3)
    stage.proxy.rule = lambda _: None
    stage.until_reason("meanwhile", "Starting")
    stage.until("the edit is applied", lambda: "--page-size=64" in arguments(stage, "before"))
    assert stage.operators[0].is_alive()


def test_the_server_says_when_to_come_again(stage: Stage) -> None:
    path = stage.admin.path("models", stage.namespace, "m")
    stage.proxy.rule = lambda call: Fault(status=429, headers={"Retry-After": "3"}) if call.path == path else None
    stage.start()
    stage.create("m")

    def looks() -> list[float]:
        return [call.at for call in list(stage.proxy.calls) if call.path == path]

    stage.until("it came again", lambda: len(looks()) >= 2)
    first, second = looks()[:2]
    assert second - first >= 3


STREAMS = {
    "an end": b"",
    "an ERROR event 410": b'{"type":"ERROR","object":{"code":410}}\n',
    "an ERROR event 500": b'{"type":"ERROR","object":{"code":500,"message":"etcd is unhappy"}}\n',
    "a truncated line": b'{"type":"MODIFIED","object":{"metada',
}


@pytest.mark.parametrize("line", STREAMS.values(), ids=STREAMS)
def test_a_watch_that_ends_badly_is_taken_up_again(stage: Stage, line: bytes) -> None:
    operator = stage.start()
    for name in ("m", "n"):
        stage.create(name)
        stage.until_reason(name, "Starting")
    stage.until("it watches", lambda: stage.proxy.num_watches("services"))
    stage.proxy.break_watches("services", line)
    stage.admin.delete("services", stage.namespace, "m")
    stage.until_whole("m")
    stage.until("it watches again", lambda: stage.proxy.num_watches("services"))
    assert operator.is_alive()


def test_events_that_never_came_are_made_up_for_by_the_resync(stage: Stage) -> None:
    stage.start(**NO_WATCHES)
    stage.create("m")
    stage.until_reason("m", "Starting")
    stage.proxy.hears = lambda *_: False
    stage.admin.delete("services", stage.namespace, "m")
    stage.edit("m", runtime={"pageSize": 64})
    stage.until_whole("m")
    stage.until("the edit is applied", lambda: "--page-size=64" in arguments(stage, "m"))


def test_there_and_back_while_nobody_looked_changes_nothing(stage: Stage) -> None:
    stage.start()
    stage.create("m")
    stage.until_reason("m", "Starting")
    before = stage.child("deployments", "m")
    stage.operators[0].kill()
    stage.operators[0].wait()
    stage.edit("m", runtime={"pageSize": 64})
    stage.edit("m", runtime=None)
    stage.start()
    stage.until("the newest spec is observed", lambda: stage.model("m")["status"]["observedGeneration"] == 3)
    assert stage.child("deployments", "m")["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_a_model_as_it_was_before_it_was_replaced_moves_nothing(stage: Stage) -> None:
    """A read from the past shows the deleted namesake, whose children would look like leftovers."""
    stage.start()
    stage.create("m")
    stage.until_reason("m", "Starting")
    path = stage.admin.path("models", stage.namespace, "m")
    past = stage.admin.call("GET", path)
    remove(stage, "m")
    stage.create("m", replicas=2)
    stage.until("the new children", lambda: replicas(stage, "m") == 2)
    stage.until_reason("m", "Starting")
    before = stage.versions("m")
    body = json.dumps(past).encode()
    stage.proxy.forget()
    stage.proxy.rule = lambda call: Fault(status=200, body=body) if (call.method, call.path) == ("GET", path) else None
    stage.admin.merge("services", stage.namespace, "m", {"metadata": {"annotations": {"example.org/note": "mine"}}})
    stage.until("it acted on the past", lambda: any(call.number for call in list(stage.proxy.calls)))
    stage.until("its status was refused", lambda: any(call.code == 409 for call in list(stage.proxy.calls)))
    stage.proxy.rule = lambda _: None
    stage.until_looked("m", 2)
    after = stage.versions("m")
    after.pop("services"), before.pop("services")  # the annotation that woke the operator
    assert after == before
    assert stage.reason("m") == "Starting"


def test_children_that_a_stale_read_hides_are_not_made_twice(stage: Stage) -> None:
    stage.start(**NO_WATCHES)
    stage.create("m")
    stage.until_reason("m", "Starting")
    before = stage.versions("m")
    paths = {stage.admin.path(kind, stage.namespace, "m") for kind in before}
    lists = stage.admin.path("services", stage.namespace)  # without them each model gets a real look
    codes = dict.fromkeys(paths, 404) | {lists: 500}
    stage.proxy.forget()
    stage.proxy.rule = lambda call: (
        Fault(status=codes[call.path]) if call.method == "GET" and call.path in codes else None
    )
    stage.until("it applies them again", lambda: len(stage.proxy.writes) >= len(paths))
    stage.proxy.rule = lambda _: None
    assert stage.versions("m") == before
    assert stage.created() == {}


def arguments(stage: Stage, name: str) -> list[str]:
    found: list[str] = stage.child("deployments", name)["spec"]["template"]["spec"]["containers"][0]["args"]
    return found


def replicas(stage: Stage, name: str) -> int | None:
    found = stage.admin.find("deployments", stage.namespace, name)
    return found["spec"]["replicas"] if found else None


def remove(stage: Stage, name: str) -> None:
    """Delete a model, and its children as the garbage collector does, which does not run here."""
    path = stage.admin.path("models", stage.namespace, name)
    stage.admin.delete("models", stage.namespace, name)
    stage.until("it is known to be gone", lambda: any((c.path, c.code) == (path, 404) for c in list(stage.proxy.calls)))
    for kind in (*ALWAYS, "networkpolicies"):
        stage.admin.delete(kind, stage.namespace, name)
