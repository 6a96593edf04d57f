"""What a model's author may add to the pods, and that nothing else has a place in the spec."""

from typing import Any

import pytest

from minisgl_operator import api
from minisgl_operator.errors import SpecError
from minisgl_operator.objects import Child, Object
from support.cluster_objects import build_children
from support.fields import SPEC, Schema, fields
from support.mistakes import fate, refusal

MODEL = {"model": {"source": "pvc://models/x"}, "device": {"type": "cpu"}}
# What has given pods the node or somebody else's identity elsewhere: each tried in the pod and in the container.
PRIVILEGES: list[tuple[str, Any]] = [
    ("volumes", [{"name": "host", "hostPath": {"path": "/"}}]),
    ("securityContext", {"runAsUser": 0}),
    ("serviceAccountName", "admin"),
    ("serviceAccount", "admin"),
    ("automountServiceAccountToken", True),
    ("hostNetwork", True),
    ("hostPID", True),
    ("hostIPC", True),
    ("hostUsers", True),
    ("hostAliases", []),
    ("nodeName", "control-plane"),
    ("initContainers", [{"name": "x", "image": "x"}]),
    ("ephemeralContainers", []),
    ("shareProcessNamespace", True),
    ("resourceClaims", []),
]
CONTAINER_PRIVILEGES: list[tuple[str, Any]] = [
    ("securityContext", {"privileged": True}),
    ("volumeMounts", [{"name": "tmp", "mountPath": "/etc"}]),
    ("volumeDevices", []),
    ("command", ["sh"]),
    ("args", ["-c"]),
    ("image", "other"),
    ("ports", [{"containerPort": 22, "hostPort": 22}]),
    ("lifecycle", {"postStart": {"exec": {"command": ["sh"]}}}),
    ("envFrom", [{"secretRef": {"name": "x"}}]),
]


def with_pod(**spec: Any) -> Schema:
    return {**MODEL, "podTemplate": {"spec": spec}}


@pytest.mark.parametrize(("field", "value"), PRIVILEGES, ids=lambda each: each if isinstance(each, str) else "")
def test_no_field_of_the_pod_gives_privileges(field: str, value: Any) -> None:
    message = refusal(with_pod(**{field: value}))
    assert message is not None
    assert field in message


@pytest.mark.parametrize(
    ("field", "value"), CONTAINER_PRIVILEGES, ids=lambda each: each if isinstance(each, str) else ""
)
def test_no_field_of_the_container_gives_privileges(field: str, value: Any) -> None:
    message = refusal(with_pod(containers=[{"name": "minisgl", field: value}]))
    assert message is not None
    assert field in message


def test_no_annotation_takes_the_container_out_of_its_apparmor_profile() -> None:
    key = "container.apparmor.security.beta.kubernetes.io/minisgl"
    end = fate({**MODEL, "podTemplate": {"metadata": {"annotations": {key: "unconfined"}}}})
    assert end.where == "reconcile"
    assert "spec.podTemplate.metadata.annotations" in end.message
    assert key in end.message


def test_no_part_of_the_spec_takes_fields_that_nobody_named() -> None:
    for field in fields():
        free = {"x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"}
        assert not free & field.schema.keys(), str(field)
        if field.schema.get("type") == "object":
            assert {"properties", "additionalProperties"} & field.schema.keys(), str(field)
    assert "hostPath" not in str(SPEC)


def pod(**spec: Any) -> Object:
    built = build_children(podTemplate={"spec": spec})[Child.DEPLOYMENT]
    found: Object = built["spec"]["template"]["spec"]
    return found


def env(*variables: Object, **fields: Any) -> list[Object]:
    template = {"spec": {"containers": [{"name": "minisgl", "env": list(variables)}]}}
    built = build_children(podTemplate=template, **fields)[Child.DEPLOYMENT]
    found: list[Object] = built["spec"]["template"]["spec"]["containers"][0]["env"]
    return found


def test_variables_are_merged_into_the_container_behind_the_operators_own() -> None:
    plain = {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}
    secret = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    config = {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k", "optional": True}}}
    found = env(plain, secret, config)
    assert found[0]["name"] == "HOME"
    assert found[-3:] == [plain, secret, config]


def test_an_empty_variable_is_set_and_empty() -> None:
    assert env({"name": "NO_PROXY", "value": ""})[-1] == {"name": "NO_PROXY", "value": ""}


@pytest.mark.parametrize("name", api.DECIDED_ENV)
def test_a_variable_that_the_operator_decides_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=rf"spec\.podTemplate.*{name}"):
        env({"name": name, "value": "/"})


def test_whatever_the_source_sets_may_not_be_set_again() -> None:
    for source in ("pvc://models/x", "hf://org/name"):
        model = {"source": source, "tokenSecret": {"name": "hub"}}
        decided = {each["name"] for each in env(model=model)}
        for name in decided:
            with pytest.raises(SpecError, match=name):
                env({"name": name, "value": "x"}, model=model)


def test_pods_are_spread_by_their_own_label_unless_another_is_given() -> None:
    spread = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
    (found,) = pod(topologySpreadConstraints=[spread])["topologySpreadConstraints"]
    assert found == spread | {"labelSelector": {"matchLabels": api.selector("smollm2")}}
    other = spread | {"labelSelector": {"matchLabels": {"a": "b"}}}
    assert pod(topologySpreadConstraints=[other])["topologySpreadConstraints"] == [other]


def test_an_affinity_arrives_as_it_was_written() -> None:
    near: Object = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["h200"]}]}]
            }
        },
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}}}
            ]
        },
    }
    assert pod(affinity=near)["affinity"] == near


def test_the_operators_own_labels_win() -> None:
    built = build_children(podTemplate={"metadata": {"labels": {api.MODEL_LABEL: "stolen", "team": "a"}}})
    labels = built[Child.DEPLOYMENT]["spec"]["template"]["metadata"]["labels"]
    assert (labels[api.MODEL_LABEL], labels["team"]) == ("smollm2", "a")


@pytest.mark.parametrize("key", ["a b", "", "a/b/c", "-a", "x" * 64, "UPPER/x"])
def test_a_label_key_that_kubernetes_refuses_is_an_invalid_spec_that_names_it(key: str) -> None:
    end = fate({**MODEL, "podTemplate": {"metadata": {"labels": {key: "x"}}}})
    assert end.where == "reconcile"
    assert "spec.podTemplate.metadata.labels" in end.message
