"""What holds for all that could be seen: Ready does not lie, nothing is unknown, and a next action is told."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from minisgl import termination
from minisgl.termination import Termination
from minisgl_operator import api
from minisgl_operator.api import Key, Status
from minisgl_operator.objects import Object, is_leaving, is_true, read_annotations
from minisgl_operator.reasons import Finding, Reason
from minisgl_operator.status import Observation, build_status, judge
from support.cluster_objects import NOW, a_deployment, a_pod, an_older_pod, loading_info, start_info

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=40)
LEFT = st.builds(
    Termination,
    reason=st.sampled_from(termination.Reason),
    message=WORDS,
    memory=st.none() | st.sampled_from(termination.Memory),
    hint=WORDS,
).map(Termination.model_dump_json)
WAITING = ["", "ContainerCreating", "PodInitializing", "ErrImagePull", "ImagePullBackOff", "InvalidImageName"]
WAITING += ["CreateContainerConfigError", "RunContainerError", "CrashLoopBackOff"]


@st.composite
def pods(draw: st.DrawFn, deployment: Object) -> Object:
    """A pod in any state, also in ones that contradict themselves."""
    pod = draw(st.sampled_from([a_pod, an_older_pod]))(f"p{draw(st.integers(0, 99))}", deployment)
    for _ in range(draw(st.integers(0, 3))):
        match draw(st.integers(0, 8)):
            case 0:
                pod.unschedulable(draw(WORDS | st.just("0/1: Insufficient nvidia.com/gpu.")))
            case 1:
                pod.waiting(draw(st.sampled_from(WAITING)), draw(WORDS), draw(st.integers(0, 9)))
            case 2:
                pod.running(started=draw(st.booleans()))
            case 3:
                pod.ready()
            case 4:
                reason = draw(st.sampled_from(["Error", "OOMKilled", "Completed"]))
                pod.crashed(draw(st.integers(0, 255)), draw(WORDS | LEFT), reason, draw(st.integers(0, 3500)))
            case 5:
                pod.evicted(draw(WORDS))
            case 6:
                pod.leaving()
            case 7:
                pod.networked()
            case 8:
                pod.refused_at_first(draw(WORDS | LEFT))
    if draw(st.booleans()):
        pod.obj["status"]["conditions"] = [each for each in pod.obj["status"]["conditions"] if draw(st.booleans())]
    return pod.obj


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    """Pods, a Deployment whose counters may lag behind them, and what servers have said."""
    count = st.integers(0, 3)
    builder = a_deployment(replicas=draw(count)).counting(draw(count), updated=draw(count), ready=draw(count))
    if draw(st.booleans()):
        builder.saying("Progressing", "False", "ProgressDeadlineExceeded")
    if draw(st.booleans()):
        builder.saying("ReplicaFailure", "True", "FailedCreate", draw(WORDS | st.just("exceeded quota: q")))
    if draw(st.booleans()):
        builder.unseen_by_its_controller()
    found = draw(st.lists(pods(builder.obj), max_size=4, unique_by=lambda pod: pod["metadata"]["uid"]))
    infos = st.none() | st.sampled_from([loading_info(), start_info()])
    told = {pod["metadata"]["uid"]: info for pod in found if (info := draw(infos))}
    problem = Finding(Reason.INVALID_SPEC, "a field is wrong", "correct it", stalled=True)
    return Observation(
        Key("ns", "smollm2"),
        draw(st.integers(1, 9)),
        builder.obj["spec"]["replicas"],
        draw(st.none() | st.just(builder.obj)),
        found,
        draw(st.none() | st.just(problem)),
        told,
    )


def serving(seen: Observation) -> list[Object]:
    """The pods of the newest template that answer, found without the code under test."""
    wanted = read_annotations(seen.deployment or {"metadata": {}}).get(api.TEMPLATE_HASH)
    mine = [pod for pod in seen.pods if read_annotations(pod).get(api.TEMPLATE_HASH) == wanted]
    return [pod for pod in mine if is_true(pod, "Ready") and not is_leaving(pod)]


@settings(max_examples=400, deadline=None)
@given(observations())
def test_ready_is_never_true_while_a_wanted_pod_does_not_answer(seen: Observation) -> None:
    _, ready = judge(seen)
    assert not ready or len(serving(seen)) >= seen.replicas
    assert not ready or seen.problem is None


@settings(max_examples=400, deadline=None)
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


@settings(max_examples=200, deadline=None)
@given(observations())
def test_the_same_cluster_gives_the_same_status_at_any_time(seen: Observation) -> None:
    status = build_status(seen, {}, NOW)
    assert build_status(seen, status, "2027-01-01T00:00:00Z") == status
