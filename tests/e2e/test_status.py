"""Status is true, quiet and in the words that Helm, Argo CD and kubectl understand (kstatus)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest

from e2e import audit, kube
from e2e.environment import Environment
from e2e.specs import wanted

STEADY_SECONDS = 15


def test_every_condition_is_there_and_speaks_of_the_newest_spec(smollm2: str) -> None:
    model = kube.get("msgl", smollm2)
    generation = model["metadata"]["generation"]
    assert model["status"]["observedGeneration"] == generation
    told = {each["type"]: each for each in model["status"]["conditions"]}
    assert {kind: each["status"] for kind, each in told.items()} == {
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
    }
    assert {each["observedGeneration"] for each in told.values()} == {generation}
    assert all(each["reason"] and each["message"] for each in told.values())


def test_kubectl_wait_understands_the_conditions(smollm2: str) -> None:
    assert "condition met" in kube.kubectl("wait", f"msgl/{smollm2}", "--for=condition=Ready", "--timeout=5s")


def test_an_event_tells_each_transition_and_none_is_repeated(smollm2: str) -> None:
    uid = kube.get("msgl", smollm2)["metadata"]["uid"]  # an earlier model of this name left events too
    events = kube.find("events", "--field-selector", f"involvedObject.uid={uid}")
    # Several may come within one second, the resolution of their times; their versions are in order.
    reasons = [event["reason"] for event in sorted(events, key=lambda event: int(event["metadata"]["resourceVersion"]))]
    assert reasons, "no event tells of the start"
    assert all(first != second for first, second in itertools.pairwise(reasons)), reasons
    assert "Serving" in reasons


def test_a_change_of_spec_is_told_at_once_and_then_reported_done(model: Callable[..., str], tiny: str) -> None:
    name = model("changing", tiny, runtime={"dummyWeight": True, "numTokens": 1024}, replicas=0)
    kube.wait_until(name, within=30)
    kube.apply(wanted(name, tiny, runtime={"dummyWeight": True, "numTokens": 2048}, replicas=0))
    kube.wait_until(name, within=30)
    seen = kube.get("msgl", name)
    assert seen["metadata"]["generation"] == seen["status"]["observedGeneration"] == 2
    assert kube.condition(seen, "Ready")["reason"] == "ScaledToZero"


def test_in_a_steady_state_the_operator_writes_nothing(env: Environment, smollm2: str) -> None:
    if env.audit_log is None:
        pytest.skip("this cluster gives no audit log (MINISGL_AUDIT_LOG)")
    kube.wait_until(smollm2)
    kube.eventually("engine facts", lambda: kube.get("msgl", smollm2)["status"].get("engine"))
    time.sleep(2)  # a write that is under way may finish
    before = audit.end(env.audit_log)
    time.sleep(STEADY_SECONDS)
    assert audit.writes(env.audit_log, before) == []
