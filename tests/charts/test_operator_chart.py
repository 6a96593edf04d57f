"""What `helm install` of the operator chart gives the cluster, over its values."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from charts import openapi
from charts.helm import CHARTS, MONITORING, NEWEST, RenderError, template, validate
from minisgl_operator.cluster import LEASE_RULES
from minisgl_operator.settings import Settings, read

RULES = yaml.safe_load((CHARTS / "minisgl-operator" / "files" / "rules.yaml").read_text())
DIGEST = "sha256:" + "0" * 64

VALUES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "two namespaces": {"watchNamespaces": ["team-a", "team-b"], "aggregateRoles": False},
    "own registry": {
        "image": {"repository": "registry.example/operator", "digest": DIGEST, "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}],
        "runtime": {"image": "registry.example/runtime:1", "imagePullPolicy": "Never", "runtimeClassName": "nvidia"},
    },
    "pinned pod": {
        "resources": {"requests": {"cpu": "50m", "memory": "150Mi"}, "limits": {"memory": "300Mi"}},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "control-plane", "operator": "Exists", "effect": "NoSchedule"}],
        "priorityClassName": "system-cluster-critical",
        "podAnnotations": {"example.org/owner": "ml"},
        "podLabels": {"team": "ml"},
        "serviceAccount": {"annotations": {"example.org/role": "none"}},
    },
    "monitored": {
        "metrics": {"port": 9000, "serviceMonitor": {"enabled": True, "interval": "30s", "labels": {"a": "b"}}}
    },
    "without definition": {"crds": {"install": False}, "logFormat": "text", "resyncSeconds": 60},
    "two operators": {"replicas": 2},
    "shared values": {"global": {"anything": 1}},
}


@pytest.mark.parametrize("version", ["1.30", NEWEST])
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_every_object_is_one_that_kubernetes_knows(values: dict[str, Any], version: str) -> None:
    for item in template("minisgl-operator", values, *MONITORING).objects:
        if item["apiVersion"] != "monitoring.coreos.com/v1":
            validate(item, version)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_every_pod_passes_the_restricted_pod_security_standard(values: dict[str, Any]) -> None:
    rendered = template("minisgl-operator", values)
    pods = [rendered.one("Deployment")["spec"]["template"]["spec"], *(hook["spec"] for hook in rendered.hooks())]
    assert len(pods) == 2
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "volumes"} & pod.keys()
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_the_definition_is_the_generated_one_and_survives_an_uninstall() -> None:
    (definition,) = template("minisgl-operator").of("CustomResourceDefinition")
    assert definition["metadata"].pop("annotations")["helm.sh/resource-policy"] == "keep"
    generated = openapi.minisgl()
    generated["metadata"].pop("annotations", None)
    assert definition == generated


def test_the_definition_can_be_left_to_somebody_else() -> None:
    assert template("minisgl-operator", {"crds": {"install": False}}).of("CustomResourceDefinition") == []


def test_without_namespaces_the_generated_rules_hold_in_the_whole_cluster() -> None:
    rendered = template("minisgl-operator")
    (role,) = [each for each in rendered.of("ClusterRole") if each["metadata"]["name"] == "minisgl-operator"]
    assert role["rules"] == RULES
    assert [role["metadata"]["namespace"] for role in rendered.of("Role")] == ["somewhere"]


def test_with_namespaces_they_hold_in_each_of_them_and_nowhere_else() -> None:
    rendered = template("minisgl-operator", {"watchNamespaces": ["team-a", "team-b"], "aggregateRoles": False})
    assert rendered.of("ClusterRole") + rendered.of("ClusterRoleBinding") == []
    roles = {role["metadata"]["namespace"]: role["rules"] for role in rendered.of("Role")}
    assert roles == {"team-a": RULES, "team-b": RULES, "somewhere": LEASE_RULES}
    for binding in rendered.of("RoleBinding"):
        (subject,) = binding["subjects"]
        assert subject == {"kind": "ServiceAccount", "name": "minisgl-operator", "namespace": "somewhere"}


def test_the_lease_is_the_releases_own_and_the_pod_tells_its_name() -> None:
    rendered = template("minisgl-operator", name="other")
    (container,) = rendered.one("Deployment")["spec"]["template"]["spec"]["containers"]
    assert "--lease-name=other" in container["args"]
    assert [each["name"] for each in container["env"]] == ["MINISGL_IDENTITY"]
    (role,) = rendered.of("Role")
    assert role["rules"] == [
        rule | ({"resourceNames": ["other"]} if "resourceNames" in rule else {}) for rule in LEASE_RULES
    ]


def test_several_operators_prefer_different_nodes() -> None:
    assert "affinity" not in template("minisgl-operator").one("Deployment")["spec"]["template"]["spec"]
    two = template("minisgl-operator", {"replicas": 2}).one("Deployment")["spec"]
    (term,) = two["template"]["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert (two["replicas"], term["podAffinityTerm"]["labelSelector"]) == (2, two["selector"])


def test_who_may_edit_a_namespace_may_edit_its_models() -> None:
    roles = {role["metadata"]["name"]: role for role in template("minisgl-operator").of("ClusterRole")}
    assert "rbac.authorization.k8s.io/aggregate-to-view" in roles["minisgl-operator-view"]["metadata"]["labels"]
    (rule,) = roles["minisgl-operator-edit"]["rules"]
    assert "minisglmodels/status" not in rule["resources"]


def test_no_right_is_a_wildcard_or_concerns_a_secret() -> None:
    for rule in RULES:
        granted = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert "*" not in granted
        assert not {"secrets", "pods/exec", "roles", "clusterroles", "rolebindings", "nodes"} & set(rule["resources"])


def arguments(values: dict[str, Any]) -> Settings:
    """The operator's settings, read by the operator itself from the container's arguments."""
    (container,) = template("minisgl-operator", values).one("Deployment")["spec"]["template"]["spec"]["containers"]
    return read(container["args"], {})


def test_the_defaults_of_the_chart_are_those_of_the_operator() -> None:
    assert arguments({}) == Settings(lease_namespace="somewhere")


def test_every_setting_arrives_at_the_operator() -> None:
    values = {
        "runtime": {"image": "registry.example/runtime:1", "imagePullPolicy": "Never", "runtimeClassName": "nvidia"},
        "watchNamespaces": ["team-a", "team-b"],
        "resyncSeconds": 60,
        "workers": 2,
        "logFormat": "text",
        "metrics": {"port": 9000},
    }
    assert arguments(values) == Settings(
        runtime_image="registry.example/runtime:1",
        runtime_image_pull_policy="Never",
        runtime_class_name="nvidia",
        watch_namespaces="team-a,team-b",
        resync_seconds=60,
        workers=2,
        log_format="text",
        metrics_port=9000,
        lease_namespace="somewhere",
    )


def test_no_service_can_set_a_variable_of_the_operator() -> None:
    assert template("minisgl-operator").one("Deployment")["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_a_digest_wins_over_a_tag() -> None:
    image = {"repository": "registry.example/operator", "tag": "1", "digest": DIGEST}
    (container,) = template("minisgl-operator", {"image": image}).one("Deployment")["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["image"] == f"registry.example/operator@{DIGEST}"


def test_the_service_reaches_the_pod() -> None:
    rendered = template("minisgl-operator", name="other")
    pod = rendered.one("Deployment")["spec"]["template"]
    service = rendered.one("Service")["spec"]
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
    assert {port["targetPort"] for port in service["ports"]} <= ports


def test_a_monitor_needs_a_value_and_a_cluster_that_knows_it() -> None:
    wanted = {"metrics": {"serviceMonitor": {"enabled": True, "interval": "30s"}}}
    assert template("minisgl-operator", wanted).of("ServiceMonitor") == []
    assert template("minisgl-operator", {}, *MONITORING).of("ServiceMonitor") == []
    rendered = template("minisgl-operator", wanted, *MONITORING)
    monitor, service = rendered.one("ServiceMonitor"), rendered.one("Service")
    openapi.validate(monitor, openapi.prometheus("servicemonitors"))
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {end["port"] for end in monitor["spec"]["endpoints"]} <= {port["name"] for port in service["spec"]["ports"]}


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"imgae": {}}, "imgae"),
        ({"image": {"repo": "x"}}, "/image"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        ({"runtime": {"image": 1}}, "/runtime/image"),
        ({"watchNamespaces": "team-a"}, "/watchNamespaces"),
        ({"watchNamespaces": ["Team A"]}, "/watchNamespaces/0"),
        ({"metrics": {"serviceMonitor": {"on": True}}}, "/metrics/serviceMonitor"),
        ({"resyncSeconds": 0}, "/resyncSeconds"),
        ({"metrics": {"port": 8081}}, "/metrics/port"),
        ({"replicas": 0}, "/replicas"),
        ({"logFormat": "xml"}, "/logFormat"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(values: dict[str, Any], path: str) -> None:
    with pytest.raises(RenderError, match=path):
        template("minisgl-operator", values)
