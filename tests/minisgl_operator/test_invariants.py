"""What holds for all that could be seen: Ready does not lie, nothing is unknown, and a next action is told."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from minisgl import termination
from minisgl.termination import Termination
from minisgl_operator import api
from minisgl_operator.api import Key, Status
from minisgl_operator.diagnosis import diagnose
from minisgl_operator.objects import Object, is_leaving, is_true, read_annotations
from minisgl_operator.reasons import Finding, Reason
from minisgl_operator.status import Observation, build_status, judge
from support.cluster_objects import NOW, PodBuilder, a_deployment, a_pod, an_older_pod, loading_info, start_info

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=40)
LEFT = st.builds(
    Termination,
    reason=st.sampled_from(termination.Reason),
    message=WORDS,
    memory=st.none() | st.sampled_from(termination.Memory),
    hint=WORDS,
).map(Termination.model_dump_json)
UNSCHEDULED = ["", "0/1: Insufficient nvidia.com/gpu.", 'persistentvolumeclaim "a" not found']
WAITING = ["", "ContainerCreating", "PodInitializing", "ErrImagePull", "ImagePullBackOff", "InvalidImageName"]
WAITING += ["CreateContainerConfigError", "RunContainerError", "CrashLoopBackOff"]


HAPPENINGS = ["fresh", "ready", "unscheduled", "waiting", "running", "crashed", "evicted", "leaving", "init"]
TROUBLES = st.sampled_from(["unscheduled", "waiting", "crashed", "evicted", "init"])


@st.composite
def pods(draw: st.DrawFn, deployment: Object, number: int) -> Object:
    """A pod that serves, and then up to two things happen to it, also such as contradict each other."""
    make = draw(st.sampled_from([a_pod, a_pod, an_older_pod]))
    pod = make(f"p{number}", deployment).ready()
    return happen(draw, pod, draw(st.lists(st.sampled_from(HAPPENINGS), max_size=2))).obj


def happen(draw: st.DrawFn, pod: PodBuilder, kinds: list[str]) -> PodBuilder:
    """Let these things happen to a pod, with words and numbers of any kind."""
    for kind in kinds:
        match kind:
            case "fresh":
                pod.obj["status"] = {"phase": "Pending", "conditions": []}
            case "ready":
                pod.ready()
            case "unscheduled":
                pod.unschedulable(draw(st.sampled_from(UNSCHEDULED) | WORDS))
            case "waiting":
                pod.waiting(
                    draw(st.sampled_from(WAITING)),
                    draw(WORDS | st.just('secret "a" not found')),
                    draw(st.integers(0, 9)),
                )
            case "running":
                pod.running(started=draw(st.booleans()))
            case "crashed":
                reason = draw(st.sampled_from(["Error", "OOMKilled", "Completed"]))
                pod.crashed(draw(st.integers(0, 255)), draw(WORDS | LEFT), reason, draw(st.integers(0, 3500)))
            case "evicted":
                pod.evicted(draw(WORDS))
            case "leaving":
                pod.leaving()
            case "init":
                pod.networked().refused_at_first(draw(WORDS | LEFT))
    return pod


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    """Pods, what servers have said, and a Deployment that mostly claims that all is well."""
    replicas = draw(st.sampled_from([1, 2, 3, 0]))
    claims = draw(st.booleans())
    count = st.just(replicas) if claims else st.integers(0, 3)
    builder = a_deployment(replicas=replicas).counting(draw(count), updated=draw(count), ready=draw(count))
    if rarely(draw):
        builder.saying("Progressing", "False", "ProgressDeadlineExceeded")
    if rarely(draw):
        builder.saying("ReplicaFailure", "True", "FailedCreate", draw(WORDS | st.just("exceeded quota: q")))
    if rarely(draw):
        builder.unseen_by_its_controller()
    found = [draw(pods(builder.obj, number)) for number in range(draw(st.just(replicas) | st.integers(0, 4)))]
    infos = st.none() | st.sampled_from([loading_info(), start_info()])
    told = {pod["metadata"]["uid"]: info for pod in found if (info := draw(infos))}
    problem = Finding(Reason.INVALID_SPEC, "a field is wrong", "correct it", stalled=True)
    return Observation(
        Key("ns", "smollm2"),
        draw(st.integers(1, 9)),
        replicas,
        None if rarely(draw) else builder.obj,
        found,
        problem if rarely(draw) else None,
        told,
    )


def rarely(draw: st.DrawFn) -> bool:
    """Once in eight times."""
    return draw(st.integers(0, 7)) == 7


def serving(seen: Observation) -> list[Object]:
    """The pods of the newest template that answer, found without the code under test."""
    wanted = read_annotations(seen.deployment or {"metadata": {}}).get(api.TEMPLATE_HASH)
    mine = [pod for pod in seen.pods if read_annotations(pod).get(api.TEMPLATE_HASH) == wanted]
    return [pod for pod in mine if is_true(pod, "Ready") and not is_leaving(pod)]


@settings(max_examples=200, deadline=None)
@given(observations())
def test_ready_is_never_true_while_a_wanted_pod_does_not_answer(seen: Observation) -> None:
    _, ready = judge(seen)
    assert not ready or len(serving(seen)) >= seen.replicas
    assert not ready or seen.problem is None


@settings(max_examples=200, deadline=None)
@given(observations())
def test_one_condition_is_true_none_is_unknown_and_what_is_not_ready_ends_with_a_next_action(seen: Observation) -> None:
    finding, ready = judge(seen)
    status: dict[str, Any] = build_status(seen, {}, NOW)
    told = {each["type"]: each for each in status["conditions"]}
    assert set(told) == {"Ready", "Reconciling", "Stalled"}
    assert sorted(each["status"] for each in told.values()) == ["False", "False", "True"]
    assert all(each["reason"] and each["message"].strip() for each in told.values())
    assert finding.reason in [*Reason, *termination.Reason]
    if not ready:
        assert finding.seen.strip()
        assert finding.action.strip()
        assert told["Ready"]["message"].endswith(f"; {finding.action}")
    Status.model_validate(status)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_trouble_of_a_pod_has_a_reason_a_cause_and_a_next_action(data: st.DataObject) -> None:
    deployment = a_deployment().counting(1).obj
    kinds = data.draw(st.lists(TROUBLES, min_size=1, max_size=2))
    found = diagnose([happen(data.draw, a_pod("p", deployment), kinds).obj], deployment)  # type: ignore[arg-type]
    if found is None:  # it waits for something that is no trouble
        assert kinds[-1] == "waiting"
        return
    assert found.reason in [*Reason, *termination.Reason]
    assert found.seen.strip()
    assert found.action.strip()
    assert found.message == f"{found.seen}; {found.action}"


@settings(max_examples=100, deadline=None)
@given(observations())
def test_the_same_cluster_gives_the_same_status_at_any_time(seen: Observation) -> None:
    status = build_status(seen, {}, NOW)
    assert build_status(seen, status, "2027-01-01T00:00:00Z") == status
