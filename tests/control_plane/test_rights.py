"""A right that is missing is named, harms nothing else, and is used as soon as it is there."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

from control_plane.client import CLUSTER_WIDE
from control_plane.server import ControlPlane
from control_plane.stage import Stage
from minisgl_operator.cluster import RULES
from minisgl_operator.objects import Object, condition

ROLE = f"{CLUSTER_WIDE['ClusterRole']}/minisgl-operator"
RIGHTS = [(resource, verb) for rule in RULES for resource in rule["resources"] for verb in rule["verbs"]]


def without(resource: str, verb: str) -> list[Object]:
    """The operator's rules but for one right."""
    rules: list[Object] = []
    for rule in copy.deepcopy(RULES):
        for each in rule["resources"]:
            verbs = [other for other in rule["verbs"] if (each, other) != (resource, verb)]
            rules += [{"apiGroups": rule["apiGroups"], "resources": [each], "verbs": verbs}] if verbs else []
    return rules


@pytest.fixture
def role(plane: ControlPlane) -> Iterator[ControlPlane]:
    """The role, whole again after the test."""
    yield plane
    set_rules(plane, RULES)


def set_rules(plane: ControlPlane, rules: list[Object]) -> None:
    plane.admin.call("PATCH", ROLE, {"rules": rules}, "application/merge-patch+json")


def complaint(stage: Stage) -> str:
    """What log and status say."""
    found = [line["message"] + line.get("exception", "") for line in stage.operators[0].log()]
    for model in stage.admin.list("models", stage.namespace):
        ready = condition(model, "Ready")
        found += [ready["message"]] if ready else []
    return "\n".join(found)


@pytest.mark.parametrize(("resource", "verb"), RIGHTS, ids="-".join)
def test_a_missing_right_is_named_and_used_when_it_is_there(
    role: ControlPlane, stage: Stage, resource: str, verb: str
) -> None:
    set_rules(role, without(resource, verb))
    operator = stage.start(resync_seconds=3)
    stage.create("m")
    stage.until("the server refuses", lambda: any(call.code == 403 for call in list(stage.proxy.calls)))
    stage.until("it is named", lambda: f'cannot {verb} resource "{resource}"' in complaint(stage))
    assert operator.is_alive()
    set_rules(role, RULES)
    stage.until_reason("m", "Starting")
    stage.until_whole("m")
    stage.serve("m")
    stage.until_reason("m", "Serving")
    assert operator.is_alive()
