"""The plain YAML for those who use no Helm: valid, and the same as what the charts render."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from charts import openapi, operator_manifest
from charts.helm import validate
from charts.tools import ROOT

MANIFESTS = ROOT / "manifests"
SAMPLES = sorted((MANIFESTS / "samples").glob("*.yaml"))


def documents(path: Path) -> list[dict[str, Any]]:
    return [item for item in yaml.safe_load_all(path.read_text()) if item]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_what_the_api_server_takes(path: Path) -> None:
    (model,) = documents(path)
    openapi.validate(model, openapi.minisgl())


def test_there_is_a_sample_for_a_cpu_a_gpu_and_several_gpus() -> None:
    assert {path.name for path in SAMPLES} >= {"smollm2-cpu.yaml", "qwen3-gpu.yaml", "llama-70b-tp4.yaml"}


def test_a_misspelled_field_of_a_sample_would_be_found() -> None:
    (model,) = documents(MANIFESTS / "samples" / "smollm2-cpu.yaml")
    model["spec"]["runtime"]["numTokenz"] = 1
    with pytest.raises(jsonschema.ValidationError, match="numTokenz"):
        openapi.validate(model, openapi.minisgl())


def test_the_operator_by_kubectl_is_the_operator_by_helm() -> None:
    written = operator_manifest.PATH.read_text()
    assert written == operator_manifest.text(), f"manifests/operator.yaml is stale; run: {operator_manifest.COMMAND}"


def test_the_namespace_demands_restricted_pods() -> None:
    (namespace,) = [item for item in documents(MANIFESTS / "operator.yaml") if item["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", ["operator.yaml", "rbac.yaml", "crd.yaml"])
def test_kubernetes_knows_every_object(name: str) -> None:
    for item in documents(MANIFESTS / name):
        validate(item)


def test_the_account_of_the_operator_is_the_one_that_has_the_rights() -> None:
    subjects = [
        (subject["kind"], subject["name"], subject["namespace"])
        for item in documents(MANIFESTS / "rbac.yaml")
        for subject in item.get("subjects", [])
    ]
    assert set(subjects) == {("ServiceAccount", "minisgl-operator", "minisgl-system")}


@pytest.mark.parametrize("path", sorted((MANIFESTS / "monitoring").glob("*monitor-*.yaml")), ids=lambda path: path.stem)
def test_a_monitor_is_one_that_the_prometheus_operator_knows(path: Path) -> None:
    for item in documents(path):
        openapi.validate(item, openapi.prometheus(f"{item['kind'].lower()}s"))
