"""Why a model does not serve, each cause provoked for real: the reason, the cause in the message, and what to do next.

All broken models are made at once, because most of the time each of them only waits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from e2e import kube
from e2e.environment import MODELS, Environment
from e2e.kube import Object
from e2e.specs import remove_broken, wanted, write_broken
from e2e.storage import claim

# Namespaces of their own: their rules would hit every pod.
FULL, SMALL, TIGHT = "no-room-for-pods", "small-pods-only", "little-memory"
QUICK = {"dummyWeight": True, "numTokens": 1024}


@dataclass
class Case:
    """A broken model: what of it is not as in `wanted`, and what its conditions shall say."""

    reason: str
    words: str  # of the message
    action: str
    condition: str = "Reconciling"
    source: str = "pvc://models/tiny-8-heads"
    namespace: str = MODELS
    within: float = 150
    spec: Object = field(default_factory=dict)


CASES = {
    "no-image": Case(
        "ImagePullFailed", "registry.invalid/no-such-image:1", "imagePullSecrets",
        spec={"image": "registry.invalid/no-such-image:1", "imagePullPolicy": "Always"},
    ),
    "no-node": Case(
        "Unschedulable", "node affinity/selector", "nodeSelector",
        spec={"podTemplate": {"spec": {"nodeSelector": {"example.org/nobody": "here"}}}},
    ),
    "no-devices": Case(
        "InsufficientGPU", "each pod asks for 2 example.com/gpu: 0/1 nodes are available", "free or add devices",
        spec={
            "device": {"type": "cuda", "resourceName": "example.com/gpu"}, "runtime": {"tensorParallelSize": 2}
        },
    ),
    "no-quota": Case("QuotaExceeded", "exceeded quota: none, requested: pods=1", "raise the ResourceQuota",
        namespace=FULL,
    ),
    "no-such-size": Case(
        "PodRejected", "maximum memory usage per Container is 64Mi", "the namespace's rules", "Stalled",
        namespace=SMALL, spec={"resources": {"limits": {"memory": "1Gi"}}},
    ),
    "no-folder": Case(
        "ModelNotFound", "no-such-folder", "spec.model.source", "Stalled", source="pvc://models/no-such-folder"
    ),
    "half-a-file": Case(
        "ModelLoadFailed", "model.safetensors", "mend the model's files", "Stalled",
        source="pvc://models/truncated", spec={"runtime": {"numTokens": 1024}},
    ),
    "nobodys": Case(
        "UnsupportedModel", "NobodysModel", "supported model", "Stalled", source="pvc://models/unsupported"
    ),
    "no-memory": Case(
        "DoesNotFit", "120 MiB", "spec.resources.limits.memory", "Stalled",
        spec={"runtime": QUICK, "resources": {"limits": {"memory": "120Mi"}}},
    ),
    # A limit that the namespace puts on a container that names none: no plan can see it, so a process meets it.
    "killed": Case(
        "OutOfMemory", "memory", "raise resources.limits.memory", "Stalled", namespace=TIGHT, spec={"runtime": QUICK}
    ),
    "not-a-server": Case("CrashLoop", "exit code", "kubectl logs", "Stalled"),
    "hanging": Case(
        "StartStalled", "nothing has advanced for", "runtime.startStallSeconds",
        source="pvc://models/hanging", spec={"runtime": {"startStallSeconds": 30, "numTokens": 1024}},
    ),
    "no-claim": Case(
        "ReferenceNotFound", 'persistentvolumeclaim "late" not found', "create the claim", source="pvc://late/folder"
    ),
    "no-secret": Case("ReferenceNotFound", 'secret "late" not found', "create it"),
    "no-key": Case("ReferenceNotFound", "couldn't find key token in Secret models/keyless", "create it"),
    "taken": Case("NameConflict", "Service taken exists and belongs to nobody", "delete it", "Stalled"),
}  # fmt: skip


def namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def secret(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def create(item: Object, where: str = MODELS) -> None:
    kube.kubectl("apply", "--namespace", where, "--filename", "-", given=json.dumps(item))


@pytest.fixture(scope="module", autouse=True)
def broken(env: Environment, operator: str, tiny: str) -> Iterator[None]:
    """All models of CASES, and what makes them fail."""
    write_broken(env.models_folder)
    for name in (FULL, SMALL, TIGHT):
        create(namespace(name))
    quota, range_ = {"hard": {"pods": "0"}}, {"limits": [{"type": "Container", "max": {"memory": "64Mi"}}]}
    create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": quota}, FULL)
    create({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": range_}, SMALL)
    default = {"limits": [{"type": "Container", "default": {"memory": "250Mi"}, "defaultRequest": {"memory": "64Mi"}}]}
    create({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "tight"}, "spec": default}, TIGHT)
    create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken"}, "spec": {"ports": [{"port": 80}]}})
    create(secret("keyless", other="x"))
    with claim("models", "ReadOnlyMany", folder=env.models_folder, namespace=TIGHT):
        for name, case in CASES.items():
            item = wanted(name, case.source, **({"runtime": QUICK} | case.spec | more(name, env)))
            if name in ("no-secret", "no-key"):
                reference = {"name": "late" if name == "no-secret" else "keyless", "key": "token"}
                item["spec"]["model"]["tokenSecret"] = reference
            create(item | {"metadata": {"name": name, "namespace": case.namespace}}, case.namespace)
        yield
        kube.kubectl("delete", "msgl", *(name for name, case in CASES.items() if case.namespace == MODELS))
    kube.kubectl("delete", "service/taken", "secret/keyless", "secret/late", "pvc/late", "--ignore-not-found")
    kube.kubectl("delete", "namespace", FULL, SMALL, TIGHT, "--wait=true", timeout=120)
    for name in CASES:
        kube.eventually(f"children of {name} are gone", partial(is_gone, name), within=60)
    remove_broken(env.models_folder)


def is_gone(name: str) -> bool:
    return not kube.children(name)


def more(name: str, env: Environment) -> Object:
    """The operator's image as a server: its process ends at once, and says nothing that we could read."""
    return {"image": env.operator_image} if name == "not-a-server" else {}


def ready(name: str) -> Object:
    """The condition Ready of a model; empty before the first look."""
    return kube.condition(kube.get("msgl", name, "--namespace", CASES[name].namespace), "Ready")


def has_reason(name: str, *reasons: str) -> bool:
    return ready(name).get("reason") in reasons


@pytest.mark.parametrize("name", CASES)
def test_a_cause_is_told_with_reason_words_and_next_action(name: str) -> None:
    case = CASES[name]

    def told() -> Object | None:
        model = kube.get("msgl", name, "--namespace", case.namespace)
        found = kube.condition(model, case.condition)
        return model if found.get("status") == "True" and found["reason"] == case.reason else None

    model = kube.eventually(f"{case.condition}/{case.reason} of {name}", told, case.within, about=name)
    message = kube.condition(model, "Ready")["message"]
    cause, _, action = message.rpartition("; ")
    assert case.words in cause
    assert case.action in action
    truths = {kind: kube.condition(model, kind)["status"] for kind in ("Ready", "Reconciling", "Stalled")}
    assert truths == {"Ready": "False", "Reconciling": "False", "Stalled": "False"} | {case.condition: "True"}


def test_the_termination_message_of_a_server_names_process_rank_and_hint() -> None:
    (pod,) = kube.pods("half-a-file")
    [container] = pod["status"]["containerStatuses"]
    state: Any = container["state"].get("terminated") or container["lastState"]["terminated"]
    left = json.loads(state["message"])
    assert (left["reason"], left["process"], left["rank"]) == ("ModelLoadFailed", "scheduler-0", 0)
    assert "mend the model's files" in left["hint"]


def test_a_claim_and_a_secret_that_come_later_are_picked_up() -> None:
    late = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}, "storageClassName": ""}
    create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "late"}, "spec": late})
    create(secret("late", token="x"))
    create(secret("keyless", token="x"))
    # The scheduler hears of a claim at once; the kubelet looks at a Secret again after 10 to 15 seconds.
    kube.eventually("the claim is seen", partial(has_reason, "no-claim", "Unschedulable"), 10, about="no-claim")
    for name in ("no-secret", "no-key"):
        kube.eventually("it starts", partial(has_reason, name, "Starting", "Serving"), 30, about=name)
