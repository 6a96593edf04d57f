"""Why a pod does not serve, from what Kubernetes and the runtime report."""

from dataclasses import dataclass
from typing import Any

import pytest

from minisgl import termination
from minisgl.termination import Memory, Termination
from minisgl_operator.diagnosis import diagnose
from minisgl_operator.generate import ROOT
from minisgl_operator.reasons import Finding, Reason, table
from support.cluster_objects import PodBuilder, a_deployment, a_pod

DEPLOYMENT = a_deployment().counting(1).obj


def pod() -> PodBuilder:
    return a_pod("smollm2-1", DEPLOYMENT)


def left(reason: str, message: str, **more: Any) -> str:
    return Termination(reason=termination.Reason(reason), message=message, **more).model_dump_json()


@dataclass
class Case:
    pod: PodBuilder
    reason: str
    stalled: bool
    words: str  # of the message: the cause ...
    action: str  # ... and what to do


CASES = {
    "an image that cannot be pulled": Case(
        pod().waiting("ErrImagePull", 'rpc error: "x/y:1": not found'),
        "ImagePullFailed", False, 'rpc error: "x/y:1": not found', "imagePullSecrets",
    ),
    "an image that cannot be pulled, in back-off": Case(
        pod().waiting("ImagePullBackOff", "Back-off pulling image"),
        "ImagePullFailed", False, "registry/minisgl-runtime:1", "check the name",
    ),
    "an image name that is none": Case(
        pod().waiting("InvalidImageName", "couldn't parse"), "ImagePullFailed", True, "couldn't parse", "check the name"
    ),
    "no node fits": Case(
        pod().unschedulable("0/3 nodes are available: 3 Insufficient cpu."),
        "Unschedulable", False, "3 Insufficient cpu;", "check resources, nodeSelector and tolerations",
    ),
    "no GPU is free": Case(
        pod().asking("nvidia.com/gpu", 4).unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
        "InsufficientGPU", False, "each pod asks for 4 nvidia.com/gpu: 0/3 nodes are available: 3 Insufficient",
        "free or add devices",
    ),
    "no device of another kind is free": Case(
        pod().asking("habana.ai/gaudi", 1).unschedulable("0/1 nodes are available: 1 Insufficient habana.ai/gaudi."),
        "InsufficientGPU", False, "asks for 1 habana.ai/gaudi: 0/1 nodes", "runtime.tensorParallelSize",
    ),
    "the claim is missing": Case(
        pod().unschedulable('0/1 nodes are available: persistentvolumeclaim "models" not found.'),
        "ReferenceNotFound", False, 'persistentvolumeclaim "models" not found', "create the claim",
    ),
    "the secret is missing": Case(
        pod().waiting("CreateContainerConfigError", 'secret "hf" not found'),
        "ReferenceNotFound", False, 'secret "hf" not found', "create it in this namespace",
    ),
    "the secret's key is missing": Case(
        pod().waiting("CreateContainerConfigError", "couldn't find key token in Secret ns/hf"),
        "ReferenceNotFound", False, "couldn't find key token", "create it in this namespace",
    ),
    "the image of the model cannot be pulled": Case(
        pod().mounting("models/smollm2:1").waiting("ErrImagePull", 'failed to resolve reference "models/smollm2:1"'),
        "ImagePullFailed", False, "image models/smollm2:1: failed to resolve", "imagePullSecrets",
    ),
    "a container runtime without image volumes": Case(
        pod().mounting("models/smollm2:1").waiting(
            "CreateContainerError",
            f'failed to generate container "{"0a" * 32}" spec: failed to apply OCI options: '
            'failed to mkdir "": mkdir : no such file or directory',
        ),
        "StartFailed", True, "the node's container runtime has no image volumes", "containerd 2.1",
    ),
    "a program that is not in the image": Case(
        pod().waiting("RunContainerError", 'exec: "--model-path=/m": executable file not found in $PATH'),
        "StartFailed", False, "executable file not found", "kubectl describe",
    ),
    "the container cannot be made": Case(
        pod().waiting("RunContainerError", "exec format error"), "StartFailed", False, "exec format", "kubectl describe"
    ),
    "the model is not there": Case(
        pod().crashed(1, left("ModelNotFound", "/models/x has no config.json.")),
        "ModelNotFound", True, "/models/x has no config.json;", "spec.model.source",
    ),
    "the arguments are wrong": Case(
        pod().crashed(2, left("InvalidArguments", "--tp=3 does not divide 8 heads")),
        "InvalidArguments", True, "does not divide 8 heads", "spec.runtime",
    ),
    "a child of the server died once": Case(
        pod().crashed(70, left("ChildDied", "scheduler-0 ended")), "ChildDied", False, "scheduler-0", "--previous"
    ),
    "a child of the server dies again and again": Case(
        pod().crashed().crashed().crashed(70, left("ChildDied", "scheduler-0 ended")),
        "ChildDied", True, "scheduler-0", "--previous",
    ),
    "a child died after a day of service, not for the first time": Case(
        pod().crashed().crashed().crashed(70, left("ChildDied", "scheduler-0 ended"), lasted=3000),
        "ChildDied", False, "scheduler-0", "--previous",
    ),
    "out of memory at start": Case(
        pod().asking("memory", "300Mi").crashed(137, reason="OOMKilled"),
        "OutOfMemory", True, "more memory than its limit of 300Mi;", "resources.limits.memory",
    ),
    "no room for the KV cache": Case(
        pod().crashed(1, left("OutOfMemory", "scheduler-0: 3 MiB are left", memory=Memory.CACHE)),
        "OutOfMemory", False, "memory for the KV cache is too small: scheduler-0: 3 MiB are left;", "memoryRatio",
    ),
    "no room on the device": Case(
        pod().crashed(1, left("OutOfMemory", "scheduler-1: no room", memory=Memory.DEVICE)),
        "OutOfMemory", False, "the device's memory is too small: scheduler-1", "runtime.tensorParallelSize",
    ),
    "a hint that the server left": Case(
        pod().crashed(1, left("ModelNotFound", "no bucket", hint="make the bucket")),
        "ModelNotFound", True, "no bucket;", "make the bucket",
    ),
    "a start in which nothing advanced": Case(
        pod().crashed(1, left("StartStalled", "scheduler-0: nothing has advanced for 5 s")),
        "StartStalled", False, "nothing has advanced for 5 s", "runtime.startStallSeconds",
    ),
    "an init container that refuses": Case(
        pod().refused_at_first(left("ModelNotFound", "no such folder")), "ModelNotFound", True, "no such folder", "spec"
    ),
    "out of memory after a long time": Case(
        pod().crashed(137, reason="OOMKilled", lasted=3000), "OutOfMemory", False, "more memory", "runtime.numTokens"
    ),
    "a crash before Python": Case(
        pod().crashed(127, "line one\nexec: python3: not found\n"),
        "CrashLoop", False, "exit code 127: exec: python3: not found;", "kubectl logs smollm2-1 --previous",
    ),
    "the third crash": Case(pod().crashed().crashed().crashed(), "CrashLoop", True, "exit code 1", "kubectl logs"),
    "an eviction": Case(
        pod().evicted("The node was low on resource: memory."), "PodEvicted", False, "low on resource", "describe pod"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_pod_in_trouble_is_told_by_reason_cause_and_next_action(case: Case) -> None:
    found = diagnose([case.pod.obj], DEPLOYMENT)
    assert found is not None
    assert (found.reason, found.stalled) == (case.reason, case.stalled)
    assert case.words in found.message
    assert case.action in found.action
    assert found.message.endswith(f"; {found.action}")


@pytest.mark.parametrize(
    "healthy", [pod(), pod().waiting("ContainerCreating"), pod().running(), pod().ready(), pod().running().prepared()]
)
def test_a_pod_on_its_way_is_no_finding(healthy: PodBuilder) -> None:
    assert diagnose([healthy.obj], DEPLOYMENT) is None


def test_a_finding_stays_while_the_container_tries_again() -> None:
    again = pod().crashed(1, left("ModelNotFound", "gone"))
    again.obj["status"]["containerStatuses"][0]["state"] = {"running": {"startedAt": "2026-11-24T11:10:00Z"}}
    found = diagnose([again.obj], DEPLOYMENT)
    assert found is not None
    assert found.reason == "ModelNotFound"


@pytest.mark.parametrize(
    ("reasons", "messages"),
    [
        (
            ("ErrImagePull", "ImagePullBackOff"),
            ("no such host", 'Back-off pulling image "registry/minisgl-runtime:1": ErrImagePull: no such host'),
        ),
        (
            ("CreateContainerError", "CreateContainerError"),
            tuple(f'failed to generate container "{digit * 64}" spec: no' for digit in "ab"),
        ),
    ],
)
def test_another_try_that_fails_alike_is_the_same_finding(reasons: list[str], messages: list[str]) -> None:
    one, two = (pod().waiting(*each).obj for each in zip(reasons, messages, strict=True))
    assert diagnose([one], DEPLOYMENT) == diagnose([two], DEPLOYMENT) is not None


def test_a_sidecar_that_crashed_once_and_runs_again_is_no_finding() -> None:
    loading = pod().running()
    ended = {"terminated": {"exitCode": 1, "reason": "Error"}}
    sidecar = {"name": "proxy", "image": "p", "state": {"running": {}}, "lastState": ended, "ready": True}
    loading.obj["status"]["containerStatuses"].append(sidecar)
    assert diagnose([loading.obj], DEPLOYMENT) is None


def test_an_eviction_is_told_until_another_pod_has_taken_the_place() -> None:
    evicted, full = a_pod("a-evicted", DEPLOYMENT).evicted("low on memory").obj, pod().unschedulable("full").obj
    for pods, reason in (([evicted], "PodEvicted"), ([evicted, full], "Unschedulable")):
        found = diagnose(pods, DEPLOYMENT)
        assert found is not None
        assert found.reason == reason
    assert diagnose([evicted, pod().running().obj], DEPLOYMENT) is None


def test_a_leaving_pod_is_not_diagnosed() -> None:
    assert diagnose([pod().crashed().leaving().obj], DEPLOYMENT) is None


def test_what_only_a_change_can_mend_comes_first() -> None:
    pods = [pod().unschedulable("full").obj, pod().crashed(1, left("ModelNotFound", "gone")).obj]
    found = diagnose(pods, DEPLOYMENT)
    assert found is not None
    assert found.reason == "ModelNotFound"


def rejected(message: str) -> Finding | None:
    return diagnose([], a_deployment().counting(0).saying("ReplicaFailure", "True", "FailedCreate", message).obj)


def test_a_quota_is_told_with_the_servers_words() -> None:
    found = rejected('pods "x" is forbidden: exceeded quota: q, requested: memory=3Gi')
    assert found is not None
    assert (found.reason, found.stalled) == ("QuotaExceeded", False)
    assert "requested: memory=3Gi; raise the ResourceQuota" in found.message


def test_a_refused_pods_changing_name_does_not_change_the_message() -> None:
    one, two = (
        rejected('pods "x-1" is forbidden: exceeded quota: q'),
        rejected('pods "x-2" is forbidden: exceeded quota: q'),
    )
    assert one == two


def test_the_schedulers_advice_on_preemption_is_left_out() -> None:
    text = (
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available"
    )
    found = diagnose([pod().unschedulable(text).obj], DEPLOYMENT)
    assert found is not None
    assert found.message.startswith("0/1 nodes are available: 1 Insufficient cpu; check")


def test_a_refused_pod_is_stalled() -> None:
    found = rejected('pods "x" is forbidden: violates PodSecurity "restricted:latest"')
    assert found is not None
    assert (found.reason, found.stalled) == ("PodRejected", True)


def test_pods_that_a_silent_webhook_keeps_out_wait_for_it() -> None:
    found = rejected('Internal error occurred: failed calling webhook "v.x": context deadline exceeded')
    assert found is not None
    assert (found.reason, found.stalled) == ("PodRejected", False)


@pytest.mark.parametrize("reason", termination.Reason)
def test_every_reason_of_the_runtime_has_a_meaning_and_a_next_action(reason: termination.Reason) -> None:
    found = diagnose([pod().crashed(1, left(reason, "it ended")).obj], DEPLOYMENT)
    assert found is not None
    assert found.message == f"it ended; {reason.hint}"
    assert reason.means.endswith(".")


def test_the_readme_has_every_reason_with_the_condition_that_is_true() -> None:
    readme = (ROOT / "operator" / "README.md").read_text()
    assert table() in readme
    for each in [*Reason, *termination.Reason]:
        assert f"| `{each.value}` |" in readme
