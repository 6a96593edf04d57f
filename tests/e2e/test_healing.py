"""Whatever is broken by hand or by accident comes back as the spec says."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import partial

import openai
import pytest

from e2e import environment, kube
from e2e.environment import MODELS, RELEASE, SYSTEM, Environment
from e2e.specs import wanted

HEAL_SECONDS = 5
KILL = """
import os, pathlib, signal
victims = [
    int(path.parent.name)
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline")
    if b"minisgl.scheduler" in path.read_bytes()
]
assert victims, "no scheduler process was found"
os.kill(victims[0], signal.SIGKILL)
"""


@pytest.fixture
def idle(model: Callable[..., str]) -> str:
    """A model whose children exist but whose pod never starts: cheap to break."""
    name = model("idle", resources={"requests": {"cpu": "640"}})
    kube.eventually("the pod is made", lambda: kube.pods(name), about=name)
    return name


def test_a_deleted_deployment_is_back_at_once(idle: str) -> None:
    before = kube.get("deployment", idle)["metadata"]["uid"]
    kube.kubectl("delete", "deployment", idle, "--wait=true")
    kube.eventually("a new one", lambda: kube.exists("deployment", idle), within=HEAL_SECONDS, about=idle)
    assert kube.get("deployment", idle)["metadata"]["uid"] != before


def test_a_deleted_service_is_back_at_once(idle: str) -> None:
    kube.kubectl("delete", "service", idle, "--wait=true")
    kube.eventually("a new one", lambda: kube.exists("service", idle), within=HEAL_SECONDS, about=idle)


def arguments(name: str) -> list[str]:
    """The command line that the Deployment of a model gives its pods."""
    container: list[str] = kube.get("deployment", name)["spec"]["template"]["spec"]["containers"][0]["args"]
    return container


def test_arguments_edited_by_hand_are_restored(idle: str) -> None:
    before = arguments(idle)
    path = "/spec/template/spec/containers/0/args"
    edit = f'[{{"op": "replace", "path": "{path}", "value": ["--shell"]}}]'
    kube.kubectl("patch", "deployment", idle, "--type=json", "--patch", edit)
    kube.eventually("the old ones", lambda: arguments(idle) == before, within=HEAL_SECONDS, about=idle)


def test_what_others_add_to_the_deployment_is_left_alone(idle: str) -> None:
    kube.kubectl("annotate", "deployment", idle, "example.org/note=mine")
    kube.kubectl("patch", "msgl", idle, "--type=merge", "--patch", '{"spec": {"replicas": 0}}')
    kube.eventually("no replica", lambda: kube.get("deployment", idle)["spec"]["replicas"] == 0, about=idle)
    assert kube.get("deployment", idle)["metadata"]["annotations"]["example.org/note"] == "mine"


def is_running(name: str) -> bool:
    """Whether a container of the model has been started."""
    return any("running" in each["state"] for pod in kube.pods(name) for each in containers(pod))


def containers(pod: kube.Object) -> list[kube.Object]:
    """What the kubelet says of a pod's containers; nothing before the first one is made."""
    found: list[kube.Object] = pod["status"].get("containerStatuses", [])
    return found


def test_a_model_deleted_while_it_starts_leaves_nothing(operator: str) -> None:
    kube.apply(wanted("leaving"))
    kube.eventually("the server is started", partial(is_running, "leaving"), about="leaving")
    kube.kubectl("delete", "msgl", "leaving", "--wait=true", timeout=30)
    kube.eventually("nothing is left", partial(gone, "leaving"), within=20)


def gone(name: str) -> bool:
    """Whether nothing is left of a model."""
    return not kube.children(name)


@pytest.fixture
def far(operator: str) -> str:
    """A namespace with a model in it."""
    name = "far"
    kube.kubectl("create", "namespace", name)
    body = wanted("m")
    item = json.dumps(body | {"metadata": {"name": "m", "namespace": name}})
    kube.kubectl("apply", "--namespace", name, "--filename", "-", given=item)
    # No claim of models lies in this namespace, so its inspection waits and it gets no Deployment.
    there = partial(kube.kubectl, "get", "services", "--output", "name", "--namespace", name)
    kube.eventually("its Service", there)
    return name


@pytest.fixture
def stopped_operator(operator: str) -> Iterator[None]:
    """No operator while the test runs."""
    kube.kubectl("scale", "deployment", RELEASE, "--replicas=0", "--namespace", SYSTEM)
    kube.kubectl(
        "wait", "pods", "--selector", "app.kubernetes.io/name=minisgl-operator", "--namespace", SYSTEM, "--for=delete"
    )
    yield
    kube.kubectl("scale", "deployment", RELEASE, "--replicas=1", "--namespace", SYSTEM)
    kube.kubectl("rollout", "status", f"deployment/{RELEASE}", "--namespace", SYSTEM, "--timeout=60s", timeout=90)


@pytest.mark.usefixtures("idle", "far", "stopped_operator")
def test_without_an_operator_models_serve_are_deleted_and_are_seen_as_not_observed(
    client: openai.OpenAI, smollm2: str, far: str
) -> None:
    kube.kubectl("delete", "namespace", far, "--wait=false")
    kube.apply(wanted("unseen"))
    assert kube.get("msgl", "unseen")["status"] == {"observedGeneration": -1}
    assert client.models.list().data[0].id == smollm2
    for name in ("unseen", "idle"):
        kube.kubectl("delete", "msgl", name, "--wait=true", timeout=10)
        kube.eventually("nothing is left", partial(gone, name), within=30)
    kube.eventually("the namespace is gone", lambda: not kube.exists("namespace", far), within=60)


def restarts(name: str) -> int:
    """How often the containers of a model were started again."""
    return sum(each["restartCount"] for pod in kube.pods(name) for each in containers(pod))


def test_a_killed_scheduler_is_told_and_the_server_comes_back(client: openai.OpenAI, smollm2: str) -> None:
    before = restarts(smollm2)
    kube.kubectl("exec", f"deployment/{smollm2}", "--", "python3", "-c", KILL)
    kube.eventually("it is told", lambda: not kube.is_true(smollm2, "Ready"), within=15, about=smollm2)
    kube.wait_until(smollm2, within=120)
    assert restarts(smollm2) == before + 1
    with kube.port_forward(f"service/{smollm2}", 80) as url:
        fresh = client.with_options(base_url=f"{url}/v1")
        assert fresh.models.list().data[0].id == smollm2


def test_a_model_is_scaled_to_two_and_back(smollm2: str) -> None:
    kube.kubectl("scale", "msgl", smollm2, "--replicas=2")
    kube.eventually("two", lambda: kube.get("msgl", smollm2)["status"].get("readyReplicas") == 2, 120, about=smollm2)
    assert kube.wait_until(smollm2)["message"].startswith("2 replicas")
    kube.kubectl("scale", "msgl", smollm2, "--replicas=1")
    kube.eventually("one", lambda: len(kube.pods(smollm2)) == 1, 60, about=smollm2)
    kube.wait_until(smollm2)


def pod_uids(name: str) -> set[str]:
    """Which pods a model has."""
    return {pod["metadata"]["uid"] for pod in kube.pods(name)}


def test_an_operator_with_a_new_default_image_restarts_no_model(env: Environment, smollm2: str) -> None:
    before, generation = pod_uids(smollm2), kube.get("deployment", smollm2)["metadata"]["generation"]
    try:
        environment.install_operator(env, "--set=runtime.image=docker.io/local/no-such-image:2")
        time.sleep(HEAL_SECONDS)
        assert kube.get("deployment", smollm2)["metadata"]["generation"] == generation
        assert pod_uids(smollm2) == before
        assert kube.is_true(smollm2, "Ready")
    finally:
        environment.install_operator(env)


def holder() -> str:
    """The pod whose operator acts."""
    spec: dict[str, str] = kube.get("lease", RELEASE, "--namespace", SYSTEM)["spec"]
    return spec["holderIdentity"]


@pytest.fixture
def two_operators(env: Environment) -> Iterator[None]:
    """The operator and one that waits."""
    environment.install_operator(env, "--set=replicas=2")
    yield
    environment.install_operator(env)


@pytest.mark.usefixtures("two_operators")
def test_of_two_operators_one_acts_and_the_other_takes_over(idle: str) -> None:
    first = holder()
    others = kube.find("pods", "--namespace", SYSTEM, "--selector", "app.kubernetes.io/name=minisgl-operator")
    assert first in {pod["metadata"]["name"] for pod in others}
    kube.kubectl("delete", "pod", first, "--namespace", SYSTEM, "--wait=false")
    kube.eventually("another holder", lambda: holder() not in ("", first), within=5)
    kube.kubectl("delete", "service", idle, "--wait=true")
    kube.eventually("a new one", lambda: kube.exists("service", idle), within=HEAL_SECONDS, about=idle)


def test_an_operator_of_one_namespace_needs_no_cluster_role(env: Environment, idle: str) -> None:
    try:
        environment.install_operator(env, f"--set=watchNamespaces={{{MODELS}}}", "--set=aggregateRoles=false")
        assert not kube.exists("clusterrole", RELEASE)
        kube.kubectl("delete", "service", idle, "--wait=true")
        kube.eventually("a new one", lambda: kube.exists("service", idle), within=HEAL_SECONDS, about=idle)
    finally:
        environment.install_operator(env)
