"""Nothing here needs more than a restricted pod, and the operator has exactly the rights that it uses."""

from __future__ import annotations

import json

import pytest
import yaml

from charts.tools import ROOT
from e2e import audit, kube
from e2e.environment import ACCOUNT, MODELS, SYSTEM, Environment
from minisgl_operator.cluster import LEASE_RULES

RULES = yaml.safe_load((ROOT / "charts" / "minisgl-operator" / "files" / "rules.yaml").read_text())


@pytest.mark.parametrize("namespace", [MODELS, SYSTEM])
def test_the_namespace_admits_only_restricted_pods_and_ours_run_there(smollm2: str, namespace: str) -> None:
    labels = json.loads(kube.kubectl("get", "namespace", namespace, "--output", "json"))["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    running = kube.find("pods", "--namespace", namespace, "--field-selector", "status.phase=Running")
    assert running
    for pod in running:
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_a_model_pod_holds_no_token_of_the_cluster(smollm2: str) -> None:
    (pod,) = kube.pods(smollm2)
    assert pod["spec"]["automountServiceAccountToken"] is False
    look = "import os; print(os.path.exists('/var/run/secrets/kubernetes.io'))"
    assert kube.kubectl("exec", pod["metadata"]["name"], "--", "python3", "-c", look).strip() == "False"


@pytest.mark.parametrize(
    "right",
    [
        ("get", "secrets"),
        ("list", "secrets"),
        ("create", "pods/exec"),
        ("delete", "pods"),
        ("update", "minisglmodels"),
        ("create", "clusterroles"),
    ],
    ids=" ".join,
)
def test_the_operator_may_not(right: tuple[str, str]) -> None:
    with pytest.raises(kube.KubectlError, match=": no\n"):
        kube.kubectl("auth", "can-i", *right, "--all-namespaces", f"--as={ACCOUNT}")


@pytest.mark.last
def test_the_operator_used_every_right_it_has_and_asked_for_no_other(env: Environment) -> None:
    if env.audit_log is None:
        pytest.skip("this cluster gives no audit log (MINISGL_AUDIT_LOG)")
    assert audit.refused(env.audit_log) == []
    assert audit.used(env.audit_log) == audit.granted([*RULES, *LEASE_RULES])
