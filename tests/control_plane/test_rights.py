"""A right that is missing is named, harms nothing else, and is used as soon as it is there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from charts import openapi
from control_plane.client import CLUSTER_WIDE
from control_plane.server import SPARE_TOKENS, ControlPlane
from control_plane.stage import Stage
from minisgl_operator.cluster import RULES
from minisgl_operator.objects import Object, condition

RIGHTS = [(resource, verb) for rule in RULES for resource in rule["resources"] for verb in rule["verbs"]]
SIDE_BY_SIDE = 6  # each mostly waits
OPTIONAL = ("networkpolicies", "podmonitors")


def without(resource: str, verb: str) -> list[Object]:
    """The operator's rules but for one right."""
    rules: list[Object] = []
    for rule in copy.deepcopy(RULES):
        for each in rule["resources"]:
            verbs = [other for other in rule["verbs"] if (each, other) != (resource, verb)]
            rules += [{"apiGroups": rule["apiGroups"], "resources": [each], "verbs": verbs}] if verbs else []
    return rules


@pytest.fixture
def monitors(plane: ControlPlane) -> Iterator[None]:
    """The kind PodMonitor, so that each right is one that a model uses."""
    definition = openapi.prometheus("podmonitors")
    plane.admin.create_object(definition)
    path = f"{CLUSTER_WIDE['CustomResourceDefinition']}/{definition['metadata']['name']}"
    yield
    plane.admin.call("DELETE", path)


def give(stage: Stage, rules: list[Object]) -> None:
    """Let the account of this stage have a role with these rules."""
    group, name = "rbac.authorization.k8s.io", stage.token
    role = {"apiGroup": group, "kind": "ClusterRole", "name": name}
    subject = {"apiGroup": group, "kind": "User", "name": name}
    stage.admin.create_object({"kind": "ClusterRole", "metadata": {"name": name}, "rules": rules})
    stage.admin.create_object(
        {"kind": "ClusterRoleBinding", "metadata": {"name": name}, "roleRef": role, "subjects": [subject]}
    )


def give_all(stage: Stage) -> None:
    path = f"{CLUSTER_WIDE['ClusterRole']}/{stage.token}"
    stage.admin.call("PATCH", path, {"rules": RULES}, "application/merge-patch+json")


def complaint(stage: Stage) -> str:
    """What log and status say."""
    found = [line["message"] + line.get("exception", "") for line in stage.operators[0].log()]
    for model in stage.admin.list("models", stage.namespace):
        ready = condition(model, "Ready")
        found += [ready["message"]] if ready else []
    return "\n".join(found)


def is_there(stage: Stage, kind: str) -> bool:
    return stage.admin.find(kind, stage.namespace, "m") is not None


def test_a_missing_right_is_named_and_used_when_it_is_there(new_stage: Callable[[], Stage], monitors: None) -> None:
    """Each right is taken from an operator, a namespace and an account of its own, some side by side."""

    def take(right: tuple[str, str], token: str) -> None:
        resource, verb = right
        stage = new_stage()
        stage.token = token
        give(stage, without(resource, verb))
        operator = stage.start(resync_seconds=3)
        stage.create("m", monitoring={"enabled": True})
        if verb == "delete":
            stage.until("the child is there", lambda: is_there(stage, resource))
            stage.edit("m", monitoring={"enabled": False}, networkPolicy={"enabled": False})
        stage.until("the server refuses", lambda: any(call.code == 403 for call in list(stage.proxy.calls)))
        stage.until(f"{verb} {resource} is named", lambda: f'cannot {verb} resource "{resource}"' in complaint(stage))
        assert operator.is_alive()
        give_all(stage)
        stage.until_reason("m", "Starting")
        stage.until_whole("m")
        stage.serve("m")
        stage.until_reason("m", "Serving")
        for kind in OPTIONAL:
            stage.until(f"{kind} is as asked", lambda kind=kind: is_there(stage, kind) == (verb != "delete"))
        assert operator.is_alive()
        operator.kill()

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        assert len(list(pool.map(take, RIGHTS, SPARE_TOKENS))) == len(RIGHTS)
