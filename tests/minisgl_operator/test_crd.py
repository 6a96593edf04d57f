"""The CRD is structural, documented throughout, and says what the API types say."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from minisgl.schema import runtime_schema
from minisgl_operator import api, crd
from minisgl_operator.api import Key, Spec, Status
from minisgl_operator.status import Observation, build_status
from support.cluster_objects import NOW, a_deployment, a_pod, start_info

VERSION = crd.build()["spec"]["versions"][0]
ROOT = VERSION["schema"]["openAPIV3Schema"]
VERSION_NAMES = crd.build()["spec"]["names"]
SPEC, STATUS = ROOT["properties"]["spec"], ROOT["properties"]["status"]
# https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
FORBIDDEN = {"$ref", "definitions", "title", "const", "exclusiveMinimum", "exclusiveMaximum", "deprecated", "examples"}


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, prop in schema.get("properties", {}).items():
        yield from nodes(prop, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            yield from nodes(schema[keyword], f"{path}[]")


@pytest.mark.parametrize(("path", "schema"), list(nodes(ROOT)), ids=[path for path, _ in nodes(ROOT)])
def test_every_node_is_structural(path: str, schema: dict[str, Any]) -> None:
    assert not FORBIDDEN & schema.keys()
    assert "type" in schema or schema.get("x-kubernetes-int-or-string")
    assert not ("properties" in schema and "additionalProperties" in schema)
    assert schema.get("default", 0) is not None


def test_every_field_has_a_description_for_kubectl_explain() -> None:
    bare = [path for path, schema in nodes(ROOT) if "description" not in schema and not path.endswith("[]")]
    assert bare == [".metadata"]  # Kubernetes' own


SENTENCE = re.compile(r"^[A-Z0-9].*\.$|^[a-z]+: .*\.$", re.DOTALL)


@pytest.mark.parametrize("path", [path for path, schema in nodes(ROOT) if "description" in schema])
def test_every_description_is_a_sentence_and_tells_what_each_value_means(path: str) -> None:
    schema = dict(nodes(ROOT))[path]
    text = schema["description"]
    assert len(text.split()) >= 3, text
    assert SENTENCE.match(text), text
    untold = [value for value in schema.get("enum", ()) if not re.search(rf"\b{re.escape(value)}\b", text)]
    assert untold == [], f"{text} does not say what {untold} mean"


def test_people_find_models_by_the_fields_they_ask_for() -> None:
    paths = [each["jsonPath"] for each in VERSION["selectableFields"]]
    assert paths == [".spec.model.source", ".spec.model.servedName", ".spec.device.type"]
    names = VERSION_NAMES
    assert (names["shortNames"], names["categories"]) == (["msgl"], ["all", "minisgl"])


def test_every_rule_has_a_message_that_names_a_field_of_its_part() -> None:
    with_rules = [(path, schema) for path, schema in nodes(ROOT) if "x-kubernetes-validations" in schema]
    assert len(with_rules) >= 10
    for path, schema in with_rules:
        own = path.rsplit(".", 1)[-1].removesuffix("[]")
        names = {own, *schema.get("properties", {}), "metadata"}
        for rule in schema["x-kubernetes-validations"]:
            assert any(name and name in rule["message"] for name in names), (path, rule["message"])


def test_runtime_is_the_schema_of_the_launch_arguments() -> None:
    assert SPEC["properties"]["runtime"] == runtime_schema()
    assert not any("default" in schema for _, schema in nodes(SPEC["properties"]["runtime"]))


def test_defaults_reach_nested_fields() -> None:
    device = SPEC["properties"]["device"]
    assert device["default"] == {}
    assert device["properties"]["type"]["default"] == "cuda"
    assert SPEC["properties"]["replicas"]["default"] == 1


def test_a_fresh_object_counts_as_not_observed() -> None:
    assert STATUS["default"] == {"observedGeneration": -1}
    assert [path for path, schema in nodes(STATUS) if "default" in schema] == [""]


def test_conditions_are_merged_by_type() -> None:
    conditions = STATUS["properties"]["conditions"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert set(conditions["items"]["required"]) >= {"type", "status", "reason", "message", "lastTransitionTime"}


def test_a_written_status_holds_only_fields_of_the_schema() -> None:
    deployment = a_deployment().counting(1, ready=1).obj
    seen = Observation(Key("ns", "smollm2"), 1, 1, deployment, [a_pod("p", deployment).ready().obj])
    seen = replace(seen, told={"uid-p": start_info()}, pods=[*seen.pods, a_pod("q", deployment).running().obj])
    status = build_status(seen, {}, NOW)
    assert status.keys() <= STATUS["properties"].keys()
    assert status["engine"].keys() <= STATUS["properties"]["engine"]["properties"].keys()
    assert status["pods"][0].keys() <= STATUS["properties"]["pods"]["items"]["properties"].keys()
    assert status["launched"].keys() <= STATUS["properties"]["launched"]["properties"].keys()
    assert Status.model_validate(status).ready_replicas == 1


def test_a_look_at_the_list_answers_and_wide_tells_the_engine() -> None:
    columns = VERSION["additionalPrinterColumns"]
    assert [each["name"] for each in columns if "priority" not in each] == [
        "Ready",
        "Replicas",
        "Reason",
        "Progress",
        "Model",
        "URL",
        "Age",
    ]
    for column in columns:
        first, field = re.findall(r"\w+", column["jsonPath"])[:2]
        assert first == "metadata" or field in ROOT["properties"][first]["properties"]


def test_scaling_reads_and_writes_fields_that_exist() -> None:
    for path in VERSION["subresources"]["scale"].values():
        _, part, field = path.split(".")
        assert field in ROOT["properties"][part]["properties"]


GOOD = ["pvc://models/a/b-1.0", "pvc://models", "hf://org/name", "hf://Qwen/Qwen3-0.6B@refs/pr/1"]
BAD = ["models/a", "pvc://", "pvc://models/../etc", "pvc://models/.ssh", "pvc://Models/x", "hf://name", "hf://a/b/c",
       "s3://a/b", "pvc://models/a b", "hf://org/-name", "file:///etc"]  # fmt: skip


@pytest.mark.parametrize("source", GOOD)
def test_a_good_source_matches(source: str) -> None:
    assert re.fullmatch(api.SOURCE_PATTERN, source)
    Spec.model_validate({"model": {"source": source}})


@pytest.mark.parametrize("source", BAD)
def test_a_bad_source_does_not(source: str) -> None:
    assert not re.search(api.SOURCE_PATTERN, source)


@pytest.mark.parametrize(
    ("size", "is_good"),
    [
        ("500m", True), ("16Gi", True), ("2", True), ("1e3", True), ("1.5E+2", True), (".5", True), ("2.", True),
        ("2GB", False), ("", False), ("-1", False), ("1e5.5", False), ("1e999999999", False), (".", False),
    ],
)  # fmt: skip
def test_quantities_are_those_of_kubernetes(size: str, is_good: bool) -> None:
    assert bool(re.search(api.QUANTITY_PATTERN, size)) == is_good
