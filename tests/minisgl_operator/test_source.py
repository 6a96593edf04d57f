"""Every kind of source: what the schema takes, and what a pod is given to reach it."""

import re
from typing import Any

import pytest

from minisgl_operator import errors
from minisgl_operator.api import SOURCE_PATTERN, Model
from minisgl_operator.build.source import Source, build_source, claim_of
from support.stage import Stage

DIGEST = "sha256:" + "0f" * 32


def source(url: str, **fields: Any) -> Source:
    return build_source(Model.model_validate({"source": url} | fields))


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("pvc://models", "/models"),
        ("pvc://models/a/b", "/models/a/b"),
        ("hf://org/name", "org/name"),
        ("hf://org/name@refs/pr/3", "org/name@refs/pr/3"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/models/llama-3", "s3://bucket/models/llama-3"),
        ("oci://registry.example/models/llama:8b", "/models"),
        ("oci://registry.example:5000/models/llama:8b/weights/fp16", "/models/weights/fp16"),
        (f"oci://localhost/llama@{DIGEST}/weights", "/models/weights"),
    ],
)
def test_a_source_becomes_a_model_path(url: str, path: str) -> None:
    assert re.fullmatch(SOURCE_PATTERN, url)
    assert source(url).model_path == path


@pytest.mark.parametrize(
    "url",
    [
        "",
        "models",
        "/models",
        "http://host/model",
        "pvc://",
        "pvc://models/../secrets",
        "pvc://models/.hidden",
        "pvc://Models",
        "hf://name",
        "hf://org/name/more",
        "hf://org/../name",
        "s3://",
        "s3://b",
        "hf://org/name@main/../../x",
        "s3://Bucket/x",
        "s3://bucket/../x",
        "s3://bucket//x",
        "oci://llama:8b",  # of which registry?
        "oci://registry.example/llama",  # which of them?
        "oci://registry.example/llama:8b/../x",
        "oci://registry.example/llama@sha256:123",
        "s3://bucket/x\n",
        "s3://bucket/x y",
    ],
)
def test_what_is_no_source_is_refused_by_the_schema(url: str) -> None:
    assert not re.search(SOURCE_PATTERN.replace("$", r"\Z"), url)


def test_an_image_is_mounted_read_only_and_whole() -> None:
    found = source("oci://registry.example:5000/models/llama:8b/weights")
    assert found.volumes == [{"name": "models", "image": {"reference": "registry.example:5000/models/llama:8b"}}]
    assert found.mounts == [{"name": "models", "mountPath": "/models", "readOnly": True}]
    pinned = source(f"oci://r.example/llama@{DIGEST}")
    assert pinned.volumes[0]["image"] == {"reference": f"r.example/llama@{DIGEST}"}


def test_a_claim_is_mounted_read_only_and_known() -> None:
    found = source("pvc://weights/llama")
    assert found.volumes == [{"name": "models", "persistentVolumeClaim": {"claimName": "weights"}}]
    assert found.mounts[0]["readOnly"] is True
    assert claim_of(Model(source="pvc://weights/llama")) == "weights"
    assert claim_of(Model(source="s3://weights/llama")) is None


def test_what_is_fetched_needs_no_volume_of_its_own() -> None:
    for url in ("hf://org/name", "s3://bucket/model"):
        assert source(url) == Source(source(url).model_path)


def test_an_object_store_is_described_in_the_environment_that_its_clients_know() -> None:
    found = source("s3://bucket/model", s3={"endpoint": "http://minio.storage.svc:9000", "region": "eu-1"})
    assert found.env == [
        {"name": "AWS_ENDPOINT_URL", "value": "http://minio.storage.svc:9000"},
        {"name": "AWS_REGION", "value": "eu-1"},
    ]


def test_secrets_are_named_and_never_read() -> None:
    keys = {"name": "store", "accessKeyIdKey": "id"}
    env = source("s3://bucket/model", s3={"credentialsSecret": keys}).env
    assert [each["name"] for each in env] == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
    assert [each["valueFrom"]["secretKeyRef"] for each in env] == [
        {"name": "store", "key": "id"},
        {"name": "store", "key": "AWS_SECRET_ACCESS_KEY"},
    ]
    (token,) = source("hf://org/name", tokenSecret={"name": "hub"}).env
    assert token == {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}


def test_a_cluster_without_image_volumes_is_told_and_not_the_field_that_it_dropped() -> None:
    stage = Stage(model={"source": "oci://registry.example/models/llama:8b"})
    message = "spec.template.spec.volumes[1]: Required value: must specify a volume type"
    stage.cluster.fail["patch deployments"] = errors.Refused("patch deployments", 422, message)
    stage.reconcile()
    assert stage.reason == "InvalidSpec"
    assert "this cluster has no image volumes for a source oci://" in stage.ready["message"]
