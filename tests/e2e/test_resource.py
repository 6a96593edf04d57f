"""The resource before a real API server: every mistake in every field, no way to privileges, and recovery."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from charts import openapi
from charts.tools import program
from e2e import api, kube
from e2e.api import DryRun
from e2e.environment import Environment
from e2e.specs import wanted
from minisgl_operator.api import Key
from minisgl_operator.build import children
from minisgl_operator.errors import SpecError
from minisgl_operator.objects import Child, Object
from minisgl_operator.reconcile import parse
from support.cluster_objects import SETTINGS, UID
from support.mistakes import Mistake, mistakes, refusal
from support.permutations import specs

RUNTIME = {"dummyWeight": True, "numTokens": 1024}
HUB = {"model": {"source": "hf://org/name"}}


@pytest.fixture(scope="module")
def server() -> Iterator[DryRun]:
    """The API server through `kubectl proxy` on a free port of this machine."""
    with subprocess.Popen([program("kubectl"), "proxy", "--port=0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().rsplit(" ", 1)[-1].strip()
            with api.dry_run(f"http://{address}") as opened:
                yield opened
        finally:
            process.terminate()


def build(spec: Object) -> tuple[dict[Child, Object], str]:
    """The children of a stored spec, or why there are none."""
    try:
        return children(Key("models", "dry"), UID, parse(spec), SETTINGS, None), ""
    except SpecError as error:
        return {}, str(error)


def judge(server: DryRun, mistake: Mistake) -> str:
    """Where a mistake ends: apply, reconcile or built. Asserts that it is told by the name of its field."""
    answer = server.model(mistake.spec)
    if not answer.accepted:
        assert mistake.field.name in answer.message, f"{mistake}: {answer.message[:500]}"
        return "apply"
    assert refusal(mistake.spec) is None, f"{mistake}: only the pure check refuses it"
    plan, message = build(answer.stored["spec"])
    if message:
        assert mistake.field.name in message, f"{mistake}: {message}"
        return "reconcile"
    for child, body in plan.items():
        if child is Child.POD_MONITOR:
            continue
        made = server.child(body)
        if not made.accepted:
            # The operator says it in these words; nothing behind the Deployment is touched then.
            assert child is Child.DEPLOYMENT, f"{mistake}: {child.kind}: {made.message[:500]}"
            return "reconcile"
    return "built"


def test_every_mistake_in_every_field_ends_where_it_is_told(server: DryRun) -> None:
    ends: dict[str, int] = {}
    wrong = []
    for mistake in mistakes():
        try:
            end = judge(server, mistake)
        except AssertionError as error:
            wrong.append(str(error))
            continue
        ends[end] = ends.get(end, 0) + 1
    assert wrong == [], f"{len(wrong)} of {sum(ends.values())}:\n" + "\n".join(wrong[:20])
    assert ends.keys() == {"apply", "reconcile", "built"}


def test_every_pod_of_every_permutation_is_admitted_where_only_restricted_ones_are(server: DryRun) -> None:
    # What it names is not there, and whoever lacks that is refused before PodSecurity looks; so is who is not valid.
    names = ("serviceAccountName", "runtimeClassName", "priorityClassName")
    judged = 0
    for spec in specs():
        plan = children(Key("models", "dry"), UID, parse(spec), SETTINGS, None)
        template = plan[Child.DEPLOYMENT]["spec"]["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "dry"} | template["metadata"]}
        answer = server.child(pod | {"spec": {k: v for k, v in template["spec"].items() if k not in names}})
        assert answer.accepted or '"dry" is invalid' in answer.message, (spec, answer.message)
        judged += answer.accepted
    assert judged > 30, judged


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"device": {"type": "cpu"}, "rollout": {"maxSurge": 0}}, "maxSurge and rollout.maxUnavailable are both 0"),
        ({"rollout": {"maxUnavailable": "0%"}}, "maxSurge and rollout.maxUnavailable are both 0"),
        ({"resources": {"limits": {"nvidia.com/gpu": 2}}}, "spec.resources.limits"),
        (
            {"resources": {"requests": {"nvidia.com/gpu": "1"}}, "runtime": {"tensorParallelSize": 2}},
            "runtime.tensorParallelSize",
        ),
        ({"device": {"type": "cpu"}, "resources": {"limits": {"nvidia.com/gpu": 1}}}, "none with device.type cpu"),
        ({"extraArgs": ["--tp=2"]}, "--tp may not be given here: set spec.runtime.tensorParallelSize"),
        ({"extraArgs": ["--port=1"]}, "--port may not be given here: the operator decides it"),
        ({"extraArgs": ["--new=1", "--new=2"]}, "gives a flag twice"),
        ({"extraArgs": ["rm"]}, "spec.extraArgs[0]"),
        ({"networkPolicy": {"from": [{}]}}, "spec.networkPolicy.from[0]"),
        ({"podTemplate": {"spec": {"tolerations": [{}]}}}, "spec.podTemplate.spec.tolerations[0]"),
        (
            {"podTemplate": {"spec": {"containers": [{"name": "minisgl", "env": [{"name": "HF_TOKEN"}]}]}}},
            "spec.podTemplate.spec.containers[0].env[0]",
        ),
        ({"podTemplate": {"spec": {"containers": [{"name": "sidecar"}]}}}, "spec.podTemplate.spec.containers[0].name"),
    ],
)
def test_what_cannot_be_together_is_refused_with_the_field_and_the_mend(
    server: DryRun, spec: dict[str, Any], text: str
) -> None:
    answer = server.model(HUB | spec)
    assert not answer.accepted
    assert text in answer.message, answer.message


@pytest.mark.parametrize(
    "spec",
    [
        {"resources": {"limits": {"nvidia.com/gpu": 2}}, "runtime": {"tensorParallelSize": 2}},
        {"resources": {"limits": {"nvidia.com/gpu": "1"}}},
        {"extraArgs": ["--new=1", "--newer", "--newest=a=b"]},
        {"rollout": {"maxSurge": "25%", "maxUnavailable": 0}},
        {"networkPolicy": {"from": [{"namespaceSelector": {}}]}, "monitoring": {"enabled": True}},
    ],
    ids=str,
)
def test_what_is_right_is_taken(server: DryRun, spec: dict[str, Any]) -> None:
    answer = server.model(HUB | spec)
    assert answer.accepted, answer.message


def test_a_device_cannot_become_another_one(model: Callable[..., str], tiny: str) -> None:
    name = model("fixed", tiny, replicas=0)
    with pytest.raises(kube.KubectlError, match=r"spec\.device\.type.*cannot change"):
        kube.apply(wanted(name, tiny, replicas=0, device={"type": "cuda"}))


def test_people_find_and_scale_models_as_they_do_deployments(model: Callable[..., str], tiny: str) -> None:
    name = model("found", tiny, replicas=0)
    for field in (f"spec.model.source={tiny}", "spec.device.type=cpu"):
        assert f"/{name}\n" in kube.kubectl("get", "msgl", "--field-selector", field, "--output", "name")
    assert f"/{name}\n" in kube.kubectl("get", "all,minisgl", "--output", "name")
    kube.wait_until(name, within=30)
    header = kube.kubectl("get", "msgl", name).split("\n")[0].split()
    assert header == ["NAME", "READY", "REPLICAS", "REASON", "PROGRESS", "MODEL", "URL", "AGE"]
    text = kube.kubectl("explain", "msgl.spec.podTemplate.spec.containers.env.valueFrom")
    assert "<empty>" not in text
    assert "a Secret, which the operator never reads" in " ".join(text.split())


def children_of(name: str) -> list[str]:
    """Name and version of all children, to see that none was written."""
    kinds = "deployments,services,serviceaccounts,networkpolicies"
    columns = "custom-columns=KIND:.kind,UID:.metadata.uid,VERSION:.metadata.generation"
    flags = ("--selector", f"minisgl.io/model={name}", "--no-headers", "--output", columns)
    return sorted(kube.kubectl("get", kinds, *flags).splitlines())


def test_a_bad_spec_leaves_the_serving_pod_alone_a_pause_keeps_it_and_mending_recovers(
    model: Callable[..., str], tiny: str
) -> None:
    name = model("mended", tiny, runtime=RUNTIME)
    kube.wait_until(name, within=120)
    (pod,) = kube.pods(name)
    before = children_of(name)
    bad = {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}  # only Kubernetes itself knows that this is wrong
    kube.apply(wanted(name, tiny, runtime=RUNTIME, resources=bad))
    found = kube.wait_until(name, "Stalled", within=30)
    assert found["reason"] == "InvalidSpec"
    assert "cpu" in found["message"]
    kube.apply(wanted(name, tiny, runtime=RUNTIME | {"numTokens": 2048}, pause=True))
    found = kube.wait_until(name, "Stalled", within=30)
    assert found["reason"] == "Paused"
    kube.apply(wanted(name, tiny, runtime=RUNTIME, pause=True))
    assert "paused" in kube.wait_until(name, within=30)["message"]
    assert children_of(name) == before
    assert [each["metadata"]["uid"] for each in kube.pods(name)] == [pod["metadata"]["uid"]]
    kube.apply(wanted(name, tiny, runtime=RUNTIME))
    kube.wait_until(name, within=30)
    assert children_of(name) == before


def test_policy_and_monitor_come_and_go_with_the_spec(model: Callable[..., str], tiny: str, env: Environment) -> None:
    name = model("watched", tiny, replicas=0, monitoring={"enabled": True})
    kube.eventually("it says that none is made", lambda: "knows no PodMonitor" in message(name), 30, about=name)
    assert kube.exists("networkpolicy", name)
    definition = yaml.safe_dump(openapi.prometheus("podmonitors"))
    kube.kubectl("create", "--filename", "-", given=definition)
    try:
        kube.kubectl("wait", "--for=condition=Established", "crd/podmonitors.monitoring.coreos.com", "--timeout=30s")
        kube.kubectl("annotate", "msgl", name, "look=again")
        kube.eventually("a monitor is made", lambda: kube.exists("podmonitor", name), within=30, about=name)
        kube.eventually("nothing is missed", lambda: "PodMonitor" not in message(name), within=30, about=name)
        kube.apply(wanted(name, tiny, replicas=0, networkPolicy={"enabled": False}))
        kube.eventually(
            "both are deleted",
            lambda: not kube.exists("podmonitor", name) and not kube.exists("networkpolicy", name),
            within=30,
            about=name,
        )
    finally:
        kube.kubectl("delete", "crd", "podmonitors.monitoring.coreos.com", "--ignore-not-found")


def message(name: str) -> str:
    """What Ready says."""
    return str(kube.condition(kube.get("msgl", name), "Ready").get("message", ""))
