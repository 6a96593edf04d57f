"""What `helm install` of the model chart gives the cluster, over its values."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import pytest

from charts import openapi
from charts.helm import CHARTS, RenderError, template, validate
from minisgl_operator import crd

POD_TEMPLATE = {
    "metadata": {"labels": {"team": "ml"}, "annotations": {"example.org/note": "a: b"}},
    "spec": {
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "runtimeClassName": "nvidia",
        "priorityClassName": "high",
        "imagePullSecrets": [{"name": "registry"}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "containers": [{"name": "minisgl", "env": [{"name": "NO_PROXY", "value": ""}]}],
    },
}
VALUES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "folder in a claim": {"model": {"source": "pvc://models/some/folder"}, "replicas": 0},
    "gated model": {
        "model": {
            "source": "hf://org/name@v1.0",
            "servedName": "org/name:latest",
            "tokenSecret": {"name": "hub", "key": "token"},
        }
    },
    "object store": {
        "model": {
            "source": "s3://models/llama",
            "s3": {"endpoint": "http://minio.storage.svc:9000", "credentialsSecret": {"name": "store"}},
        },
        "cache": {"claim": "weights", "jitClaim": "kernels"},
    },
    "image": {
        "model": {"source": "oci://registry.example:5000/models/llama:8b/weights"},
        "cache": {"sizeLimit": "20Gi"},
    },
    "gpus": {
        "device": {"type": "cuda", "resourceName": "nvidia.com/mig-1g.5gb"},
        "runtime": {"tensorParallelSize": 4, "attentionBackend": "fa,fi", "memoryRatio": 0.85, "silentOutput": True},
        "resources": {"requests": {"cpu": 4, "memory": "8Gi"}, "limits": {"memory": "16Gi"}},
    },
    "own image and pod": {
        "image": "registry.example/runtime:1",
        "imagePullPolicy": "Never",
        "podTemplate": POD_TEMPLATE,
    },
    "autoscaled": {"replicas": None},
    "monitored": {"monitoring": {"enabled": True, "interval": "15s", "labels": {"release": "prometheus"}}},
    "closed, slow and paused": {
        "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}], "egressPorts": [3128]},
        "rollout": {"maxSurge": "25%", "maxUnavailable": 0, "progressDeadlineSeconds": 600},
        "extraArgs": ["--new-flag=1"],
        "pause": True,
    },
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_the_model_is_one_that_the_operator_knows(values: dict[str, Any]) -> None:
    openapi.validate(template("minisgl-model", values).one("MiniSGLModel"), openapi.minisgl())


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_every_test_pod_is_valid_and_restricted(values: dict[str, Any]) -> None:
    (pod,) = template("minisgl-model", values).hooks()
    validate(pod)
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["spec"]["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    ast.parse(container["command"][2])


def test_every_value_arrives_in_the_spec_as_it_was_written() -> None:
    values = {
        "model": {
            "source": "s3://bucket/folder",
            "servedName": "name",
            "tokenSecret": {"name": "hub", "key": "token"},
            "s3": {"region": "eu-1", "credentialsSecret": {"name": "store", "accessKeyIdKey": "id"}},
        },
        "cache": {"claim": "weights"},
        "device": {"type": "cuda", "resourceName": "amd.com/gpu"},
        "runtime": {"numTokens": 1000000, "memoryRatio": 0.85, "dtype": "float16", "silentOutput": True},
        "replicas": 3,
        "image": "registry.example/runtime:1",
        "imagePullPolicy": "Always",
        "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "3Gi"}},
        "podTemplate": POD_TEMPLATE,
        "extraArgs": ["--new-flag=1"],
        "rollout": {"maxSurge": "25%", "maxUnavailable": 0},
        "networkPolicy": {"enabled": False},
        "monitoring": {"enabled": True, "interval": "30s"},
        "pause": True,
    }
    assert template("minisgl-model", values).one("MiniSGLModel")["spec"] == values


def test_every_field_of_the_spec_is_a_value() -> None:
    values = json.loads((CHARTS / "minisgl-model" / "values.schema.json").read_text())["properties"]
    spec = crd.spec_schema()["properties"]
    for name, schema in spec.items():
        assert values[name].get("properties", {}).keys() == schema.get("properties", {}).keys(), name


def test_every_value_has_a_line_in_the_readme() -> None:
    schema = json.loads((CHARTS / "minisgl-model" / "values.schema.json").read_text())["properties"]
    rows = (CHARTS / "minisgl-model" / "README.md").read_text().split("## Launch arguments")[0].splitlines()
    told = {name for row in rows for name in re.findall(r"`([\w.]+)`", row.split("|")[1] if row[:1] == "|" else "")}
    parts = ("model", "device", "test")  # told by field; of the others some fields may be
    known = {name for name in schema if name not in (*parts, "global")}
    known |= {f"{part}.{name}" for part in parts for name in schema[part]["properties"]}
    assert told == known


def test_a_value_can_be_taken_away() -> None:
    for name in ("cache", "resources", "podTemplate", "networkPolicy", "monitoring", "rollout", "extraArgs", "image"):
        assert name not in template("minisgl-model", {name: None}).one("MiniSGLModel")["spec"]


def test_what_is_not_set_is_left_to_the_operator() -> None:
    spec = template("minisgl-model", {"replicas": None}).one("MiniSGLModel")["spec"]
    assert spec == {"model": {"source": "hf://HuggingFaceTB/SmolLM2-135M-Instruct"}, "device": {"type": "cpu"}}


@pytest.mark.parametrize("number", [2, 256, 100_000, 1_000_000, 123_456_789, 2**31 - 1])
def test_a_large_number_keeps_its_digits(number: int) -> None:
    for flags in ((), ("--set", f"runtime.numTokens={number}")):
        values = {} if flags else {"runtime": {"numTokens": number}}
        runtime = template("minisgl-model", values, *flags).one("MiniSGLModel")["spec"]["runtime"]
        assert runtime == {"numTokens": number}
        assert isinstance(runtime["numTokens"], int)


@pytest.mark.parametrize("text", ["yes", "1e3", "a: b", "{{ .Values }}", "#x", "'\"", "null"])
def test_hostile_text_stays_text(text: str) -> None:
    values = {"podTemplate": {"metadata": {"annotations": {"example.org/note": text}}}, "image": text}
    spec = template("minisgl-model", values).one("MiniSGLModel")["spec"]
    assert spec["podTemplate"]["metadata"]["annotations"] == {"example.org/note": text}
    assert spec["image"] == text


def test_the_model_is_named_like_the_release_or_as_it_is_told() -> None:
    assert template("minisgl-model", name="smollm2").one("MiniSGLModel")["metadata"]["name"] == "smollm2"
    assert template("minisgl-model", {"name": "other"}, name="x").one("MiniSGLModel")["metadata"]["name"] == "other"


def test_the_test_pod_asks_the_service_of_its_model_and_runs_like_it() -> None:
    values = {"name": "other", "image": "registry.example/runtime:1", "podTemplate": POD_TEMPLATE}
    (pod,) = template("minisgl-model", values).hooks()
    (container,) = pod["spec"]["containers"]
    assert container["args"][0] == "http://other"
    assert container["image"] == "registry.example/runtime:1"
    assert pod["spec"]["runtimeClassName"] == "nvidia"
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"modell": {}}, "modell"),
        ({"model": {"source": "/models/x"}}, "/model/source"),
        ({"model": {"source": "pvc://models/../secret"}}, "/model/source"),
        ({"model": {"path": "x"}}, "/model"),
        ({"model": {"source": "s3://b/x", "s3": {"endpoint": "minio:9000"}}}, "/model/s3/endpoint"),
        ({"device": {"type": "tpu"}}, "/device/type"),
        ({"runtime": {"numPagess": 2}}, "/runtime"),
        ({"runtime": {"tensorParallelSize": 0}}, "/runtime/tensorParallelSize"),
        ({"runtime": {"tensorParallelSize": "two"}}, "/runtime/tensorParallelSize"),
        ({"runtime": {"dtype": "float8"}}, "/runtime/dtype"),
        ({"replicas": -1}, "/replicas"),
        ({"podTemplate": {"spec": {"hostNetwork": True}}}, "/podTemplate/spec"),
        ({"monitoring": {"interval": "often"}}, "/monitoring/interval"),
        ({"rollout": {"maxSurge": "half"}}, "/rollout/maxSurge"),
        ({"networkPolicy": {"from": []}}, "/networkPolicy/from"),
        ({"extraArgs": ["rm -rf"]}, "/extraArgs/0"),
        ({"name": "9lives"}, "/name"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(values: dict[str, Any], path: str) -> None:
    with pytest.raises(RenderError, match=path):
        template("minisgl-model", values)
