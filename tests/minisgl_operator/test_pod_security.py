"""Every pod that any spec can lead to passes the pod security standard "restricted", and holds no token."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from minisgl_operator.api import Key
from minisgl_operator.build.inspect import build_inspection
from minisgl_operator.objects import Child, Object
from support.cluster_objects import UID, build_children
from support.mistakes import fate
from support.permutations import specs
from support.pod_security import violations


def test_every_pod_is_restricted_and_has_no_identity_of_the_cluster() -> None:
    seen = 0
    for spec in specs():
        built = fate(spec).children
        assert built is not None
        job = build_inspection(Key("ns", "m"), UID, built[Child.DEPLOYMENT])
        for body in (*built.values(), job):
            template = body["spec"].get("template") if "spec" in body else None
            if template is None:
                continue
            pod = template["spec"]
            assert violations(pod) == [], (body["kind"], spec)
            assert pod["automountServiceAccountToken"] is False
            assert pod["serviceAccountName"] == built[Child.SERVICE_ACCOUNT]["metadata"]["name"]
            seen += 1
    assert seen > 200


BREAKS: dict[str, Callable[[Object], Any]] = {
    "hostNetwork": lambda pod: pod.update(hostNetwork=True),
    "volume x is a hostPath": lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
    "runAsNonRoot": lambda pod: pod["securityContext"].pop("runAsNonRoot"),
    "seccompProfile": lambda pod: pod["securityContext"].pop("seccompProfile"),
    "privileged": lambda pod: pod["containers"][0]["securityContext"].update(privileged=True),
    "allowPrivilegeEscalation": lambda pod: pod["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
    "capabilities.drop": lambda pod: pod["containers"][0].pop("securityContext"),
    "hostPort": lambda pod: pod["containers"][0]["ports"].append({"containerPort": 1, "hostPort": 1}),
}


@pytest.mark.parametrize("rule", BREAKS)
def test_a_pod_that_breaks_a_rule_would_be_found(rule: str) -> None:
    pod = copy.deepcopy(build_children()[Child.DEPLOYMENT]["spec"]["template"]["spec"])
    BREAKS[rule](pod)
    assert rule in violations(pod)
