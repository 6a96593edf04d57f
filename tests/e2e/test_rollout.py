"""No request is lost when pods come and go: 20 steady streams through the Service, none of them tried a second time."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from charts.tools import program
from e2e import kube
from e2e.environment import MODELS, RELEASE, SYSTEM, Environment
from e2e.specs import wanted

RUNTIME = {"dummyWeight": True, "numTokens": 16384, "maxRunningRequests": 32}
NAME, CLIENT = "rolling", "load"
LOAD = Path(__file__).with_name("load.py").read_text()
STREAMS = "20"


@pytest.fixture(scope="module")
def two(operator: str, tiny: str) -> Iterator[str]:
    """A model of two replicas, which costs little."""
    kube.apply(wanted(NAME, tiny, runtime=RUNTIME, replicas=2))
    kube.wait_until(NAME, within=300)
    yield NAME
    kube.delete(NAME)


@pytest.fixture(scope="module")
def client_pod(env: Environment) -> Iterator[str]:
    """A pod of the runtime's image that does nothing by itself."""
    container = {
        "name": "load",
        "image": env.runtime_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "86400"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "containers": [container],
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
    } | ({"runtimeClassName": env.runtime_class} if env.runtime_class else {})
    kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": CLIENT}, "spec": spec})
    kube.kubectl("wait", f"pod/{CLIENT}", "--for=condition=Ready", "--timeout=60s", timeout=70)
    yield CLIENT
    kube.kubectl("delete", "pod", CLIENT, "--wait=false")


@contextmanager
def nothing_lost(name: str, client_pod: str) -> Iterator[None]:
    """20 streams while the block runs. None fails, each is whole, and there were enough of them to tell."""
    address = kube.get("service", name)["spec"]["clusterIP"]
    where = ("--namespace", MODELS, "exec", "--stdin", client_pod, "--")
    command = [program("kubectl"), *where, "python3", "-c", LOAD, f"http://{address}", name, STREAMS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            yield
            said, _ = process.communicate(timeout=120)  # the end of its standard input is the sign to finish
        finally:
            process.kill()
    counted = json.loads(said)
    print(counted)  # the figures, shown with --capture=no
    assert counted["failures"] == [], kube.tell(name)
    assert counted["whole"] >= 2 * int(STREAMS), counted


def uids(name: str) -> set[str]:
    """All pods of a model, also those that are leaving."""
    return {pod["metadata"]["uid"] for pod in kube.find("pods", "--selector", f"minisgl.io/model={name}")}


def settled(name: str, num: int) -> bool:
    """Ready, with `num` pods and none that is leaving."""
    return bool(kube.is_true(name, "Ready")) and len(uids(name)) == len(kube.pods(name)) == num


def test_a_rolling_update_loses_no_request(two: str, client_pod: str, tiny: str) -> None:
    before = uids(two)
    with nothing_lost(two, client_pod):
        annotated = {"metadata": {"annotations": {"example.org/round": "2"}}}
        kube.apply(wanted(two, tiny, runtime=RUNTIME, replicas=2, podTemplate=annotated))
        kube.eventually("new pods alone", lambda: settled(two, 2) and not before & uids(two), 180, about=two)


def test_a_pod_deleted_by_hand_loses_no_request_even_while_the_operator_is_down(two: str, client_pod: str) -> None:
    gone = kube.pods(two)[0]["metadata"]["name"]
    scale = ("scale", "deployment", RELEASE, "--namespace", SYSTEM)
    try:
        with nothing_lost(two, client_pod):
            kube.kubectl(*scale, "--replicas=0")
            kube.kubectl("delete", "pod", gone, "--wait=true", timeout=60)
            kube.eventually("another one", lambda: len(ready(two)) == 2, 120, about=two)
    finally:
        kube.kubectl(*scale, "--replicas=1")
    kube.eventually("the operator sees it", partial(settled, two, 2), 60, about=two)


def ready(name: str) -> list[kube.Object]:
    """The pods that answer, as the kubelet says."""
    return [pod for pod in kube.pods(name) if kube.condition(pod, "Ready").get("status") == "True"]


def test_a_rollout_that_gets_nowhere_says_so_in_time_and_the_last_good_pods_serve(
    two: str, client_pod: str, tiny: str
) -> None:
    before = {pod["metadata"]["uid"] for pod in ready(two)}
    # More than any node has. (An image that cannot be pulled is met sooner, by the inspection before the rollout.)
    too_much = {"requests": {"cpu": "640"}}
    with nothing_lost(two, client_pod):
        deadline = {"progressDeadlineSeconds": 20}
        kube.apply(wanted(two, tiny, runtime=RUNTIME, replicas=2, resources=too_much, rollout=deadline))
        found = kube.wait_until(two, "Stalled", within=60)
    assert found["reason"] == "Unschedulable"
    assert "Insufficient cpu" in found["message"]
    assert "for 20 s" in found["message"]
    assert "2 of the previous spec still serving" in found["message"]
    assert {pod["metadata"]["uid"] for pod in ready(two)} == before
    kube.apply(wanted(two, tiny, runtime=RUNTIME, replicas=2))
    kube.eventually("the good spec again", partial(settled, two, 2), 120, about=two)


def test_a_scale_down_loses_no_request(two: str, client_pod: str) -> None:
    with nothing_lost(two, client_pod):
        kube.kubectl("scale", "msgl", two, "--replicas=1")
        kube.eventually("one pod", partial(settled, two, 1), 60, about=two)


def test_a_pod_told_to_stop_ends_when_its_last_request_does(two: str) -> None:
    """Long before its grace period, with exit code 0; the Deployment replaces it."""
    pod = kube.pods(two)[0]
    grace = pod["spec"]["terminationGracePeriodSeconds"]
    assert grace >= 40
    name = pod["metadata"]["name"]
    kube.kubectl("delete", "pod", name, "--wait=true", timeout=grace - 10)


GPUS = "rollout.example.com/gpu"


@pytest.fixture
def node_with_two_gpus() -> Iterator[str]:
    """The scheduler and the kubelet count them like real ones; nothing else of a GPU is there."""
    name: str = kube.find("nodes")[0]["metadata"]["name"]
    path = f"/status/capacity/{GPUS.replace('/', '~1')}"

    def tell(*operation: dict[str, str]) -> None:
        kube.kubectl("patch", "node", name, "--subresource=status", "--type=json", "--patch", json.dumps(operation))

    def free() -> str:
        return str(kube.get("node", name)["status"]["allocatable"].get(GPUS))

    tell({"op": "add", "path": path, "value": "2"})
    kube.eventually("the kubelet offers them", lambda: free() == "2", within=30)
    yield name
    tell({"op": "remove", "path": path})


def test_a_rollout_of_a_gpu_model_needs_no_spare_gpu(
    env: Environment, tiny: str, model: Callable[..., str], node_with_two_gpus: str
) -> None:
    """Two pods hold both GPUs; the image takes `--device=cuda` for the CPU, all else is as on a node with GPUs."""
    if env.without_gpu_image is None:
        pytest.skip("this cluster has no image that takes cuda for the CPU (MINISGL_WITHOUT_GPU_IMAGE)")
    spec = {
        "device": {"type": "cuda", "resourceName": GPUS},
        "image": env.without_gpu_image,
        "runtime": RUNTIME,
        "replicas": 2,
    }
    name = model("no-spare-gpu", tiny, **spec)
    kube.wait_until(name, within=180)
    before = uids(name)
    kube.kubectl("scale", "msgl", name, "--replicas=3")
    kube.eventually("a third finds none", lambda: reason(name) == "InsufficientGPU", within=30, about=name)
    kube.kubectl("scale", "msgl", name, "--replicas=2")
    kube.wait_until(name, within=60)
    kube.apply(wanted(name, tiny, **spec, podTemplate={"metadata": {"annotations": {"example.org/round": "2"}}}))
    kube.eventually("new pods alone", lambda: settled(name, 2) and not before & uids(name), 180, about=name)


def reason(name: str) -> str:
    """Why model `name` is not ready."""
    return str(kube.condition(kube.get("msgl", name), "Ready").get("reason"))
