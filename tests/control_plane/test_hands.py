"""What people do: edit and delete children, take their names, delete namespaces, upgrade the definition."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import yaml

from charts.tools import ROOT
from control_plane.client import CLUSTER_WIDE
from control_plane.stage import ALWAYS, Stage
from minisgl_operator.objects import Object

DEFINITION = f"{CLUSTER_WIDE['CustomResourceDefinition']}/minisglmodels.minisgl.io"
NO_OWNER = {"metadata": {"ownerReferences": None}}
NO_LABEL = {"metadata": {"labels": {"minisgl.io/model": None}}}


@pytest.fixture
def m(stage: Stage) -> Stage:
    """A stage with one model whose children are there."""
    stage.start()
    stage.create("m")
    stage.until_reason("m", "Starting")
    return stage


def owned_and_labelled(child: Object) -> bool:
    meta = child["metadata"]
    return bool(meta.get("ownerReferences")) and "minisgl.io/model" in meta.get("labels", {})


@pytest.mark.parametrize("damage", [NO_OWNER, NO_LABEL], ids=["owner", "label"])
@pytest.mark.parametrize("kind", ALWAYS)
def test_a_child_without_its_owner_or_label_gets_it_back(m: Stage, kind: str, damage: Object) -> None:
    m.until("it watches", lambda: m.proxy.num_watches(kind))
    assert not owned_and_labelled(m.admin.merge(kind, m.namespace, "m", damage))
    m.until("it is back", lambda: owned_and_labelled(m.child(kind, "m")))
    assert m.reason("m") == "Starting"


@pytest.mark.parametrize("kind", ALWAYS)
def test_a_deleted_child_comes_back(m: Stage, kind: str) -> None:
    before = m.child(kind, "m")["metadata"]["uid"]
    m.until("it watches", lambda: m.proxy.num_watches(kind))
    m.admin.delete(kind, m.namespace, "m")
    m.until_whole("m")
    assert m.child(kind, "m")["metadata"]["uid"] != before


def test_a_deployment_scaled_by_hand_is_scaled_back(m: Stage) -> None:
    m.admin.merge("deployments", m.namespace, "m", {"spec": {"replicas": 5}}, "/scale")
    m.until("one replica", lambda: m.child("deployments", "m")["spec"]["replicas"] == 1)


def test_a_restart_by_hand_and_a_foreign_sidecar_stay(m: Stage) -> None:
    restarted = {"kubectl.kubernetes.io/restartedAt": "2026-11-24T12:00:00Z"}
    sidecar = {"name": "sidecar", "image": "docker.io/library/sidecar:1"}
    template = {"metadata": {"annotations": restarted}, "spec": {"containers": [sidecar]}}
    path = m.admin.path("deployments", m.namespace, "m")
    kind = "application/strategic-merge-patch+json"
    m.admin.call("PATCH", path, {"spec": {"template": template}}, kind)
    m.edit("m", runtime={"pageSize": 64})
    container = lambda: m.child("deployments", "m")["spec"]["template"]["spec"]["containers"]  # noqa: E731
    m.until("the edit is applied", lambda: any("--page-size=64" in each.get("args", []) for each in container()))
    after = m.child("deployments", "m")["spec"]["template"]
    assert after["metadata"]["annotations"].items() >= restarted.items()
    assert {each["name"] for each in container()} == {"minisgl", "sidecar"}


@pytest.mark.parametrize("kind", ["services", "serviceaccounts", "deployments"])
def test_a_foreign_object_with_a_childs_name_is_named_and_left_as_it_is(stage: Stage, kind: str) -> None:
    spec: dict[str, Object] = {
        "services": {"spec": {"ports": [{"port": 80}]}},
        "serviceaccounts": {},
        "deployments": {
            "spec": {
                "selector": {"matchLabels": {"a": "b"}},
                "template": {
                    "metadata": {"labels": {"a": "b"}},
                    "spec": {"containers": [{"name": "c", "image": "docker.io/library/c:1"}]},
                },
            }
        },
    }
    foreign = stage.admin.create(kind, stage.namespace, {"metadata": {"name": "m"}, **spec[kind]})
    stage.start()
    stage.create("m")
    stage.until_reason("m", "NameConflict")
    assert stage.child(kind, "m")["metadata"]["resourceVersion"] == foreign["metadata"]["resourceVersion"]
    stage.admin.delete(kind, stage.namespace, "m")
    stage.until_reason("m", "Starting")


def test_nothing_is_made_in_a_namespace_that_goes_away(m: Stage) -> None:
    """No namespace controller runs here, so it stays in between for ever, as one does with a stuck finalizer."""
    m.until("it watches", lambda: m.proxy.num_watches("services"))
    m.proxy.forget()
    m.admin.call("DELETE", f"/api/v1/namespaces/{m.namespace}")
    m.admin.delete("services", m.namespace, "m")
    m.until("it tried", lambda: m.proxy.writes)
    m.until_looked("m", 1)
    assert {(call.resource, call.code) for call in m.proxy.writes} == {("services", 403)}
    assert m.operators[0].is_alive()
    assert [line for line in m.operators[0].log() if line["level"] in ("error", "warning")] == []


@pytest.fixture
def definition(stage: Stage) -> Iterator[Callable[[Callable[[Object], Any]], None]]:
    """`definition(change)` changes the schema of the definition in the cluster; the generated one is put back."""
    generated = yaml.safe_load((ROOT / "manifests" / "crd.yaml").read_text())

    def put(body: Object) -> None:
        body["metadata"]["resourceVersion"] = stage.admin.call("GET", DEFINITION)["metadata"]["resourceVersion"]
        stage.admin.call("PUT", DEFINITION, body)

    def change(edit: Callable[[Object], Any]) -> None:
        body = copy.deepcopy(generated)
        edit(body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"])
        put(body)

    yield change
    put(generated)


def is_served_with(stage: Stage, field: str) -> bool:
    """Whether the server takes a status with this field: its schemas follow the definition with a delay."""
    body = {"status": {"observedGeneration": -1, field: {"pod": "probe"}}}
    path = stage.admin.path("models", stage.namespace, "probe") + "/status?dryRun=All&fieldValidation=Strict"
    try:
        stage.admin.call("PATCH", path, body, "application/merge-patch+json")
    except httpx.HTTPStatusError as error:
        return "unknown field" not in str(error)
    return True


def test_an_operator_newer_than_the_definition_works_without_the_field(
    stage: Stage, definition: Callable[[Callable[[Object], Any]], None]
) -> None:
    stage.create("probe")
    definition(lambda schema: schema["status"]["properties"].pop("startup"))
    stage.until("the old definition is served", lambda: not is_served_with(stage, "startup"))
    stage.start()
    stage.create("m")
    stage.until_reason("m", "Starting")
    stage.serve("m")
    stage.until_reason("m", "Serving")
    assert "startup" not in stage.model("m")["status"]
    before = stage.versions("m")
    definition(lambda _: None)
    stage.until("the new definition is served", lambda: is_served_with(stage, "startup"))
    stage.restart()
    stage.until("the field is filled in", lambda: "startup" in stage.model("m")["status"])
    assert stage.versions("m") == before


def test_an_operator_older_than_the_definition_leaves_what_it_does_not_know(
    stage: Stage, definition: Callable[[Callable[[Object], Any]], None]
) -> None:
    stage.start()
    stage.create("m")
    stage.until_reason("m", "Starting")
    before = stage.versions("m")
    definition(lambda schema: schema["spec"]["properties"].update(tomorrow={"type": "string"}))

    def taken() -> bool:
        stage.edit("m", tomorrow="yes")
        return stage.model("m")["spec"].get("tomorrow") == "yes"

    stage.until("the new field is stored", taken)
    stage.restart()
    stage.until_reason("m", "Starting")
    assert stage.model("m")["spec"]["tomorrow"] == "yes"
    assert stage.versions("m") == before
