"""What a model's status says, as sentences. Only what users and tools read is held: conditions, counters, facts."""

from typing import Any

import pytest

from minisgl.info import StartInfo
from minisgl_operator.api import Key
from minisgl_operator.objects import Object, condition
from minisgl_operator.reasons import Finding, Reason
from minisgl_operator.status import Observation, build_status, judge, to_ask
from support.cluster_objects import NOW, a_deployment, a_pod, an_older_pod, loading_info, start_info

KEY = Key("ns", "smollm2")


def seen(deployment: Object | None, *pods: Object, replicas: int = 1, **more: Any) -> Observation:
    return Observation(KEY, 3, replicas, deployment, list(pods), **more)


def standing(observation: Observation) -> tuple[str, bool, bool]:
    """Reason, ready, stalled."""
    finding, ready = judge(observation)
    return str(finding.reason), ready, finding.stalled


def ready_model(told: StartInfo | None = None) -> Observation:
    deployment = a_deployment().counting(1, ready=1).obj
    answers = {} if told is None else {"uid-p": told}
    return seen(deployment, a_pod("p", deployment).ready().obj, told=answers)


def test_a_model_whose_replicas_all_answer_is_serving_at_its_url() -> None:
    finding, ready = judge(ready_model())
    assert (finding.reason, ready) == ("Serving", True)
    assert finding.message == "1 replica serves at http://smollm2.ns.svc/v1"


def test_a_model_is_not_ready_before_the_deployment_controller_has_seen_the_newest_spec() -> None:
    deployment = a_deployment().counting(1, ready=1).unseen_by_its_controller().obj
    assert standing(seen(deployment, a_pod("p", deployment).ready().obj)) == ("Starting", False, False)


def test_ready_pods_of_an_older_spec_do_not_count() -> None:
    deployment = a_deployment().counting(2, updated=1, ready=1).obj
    pods = an_older_pod("old", deployment).ready().obj, a_pod("new", deployment).running().obj
    assert standing(seen(deployment, *pods)) == ("RollingOut", False, False)


def test_a_failing_rollout_tells_that_the_previous_spec_still_serves() -> None:
    deployment = a_deployment().counting(2, updated=1, ready=1).obj
    pods = an_older_pod("old", deployment).ready().obj, a_pod("new", deployment).waiting("ErrImagePull", "no").obj
    finding, ready = judge(seen(deployment, *pods))
    assert (finding.reason, ready) == ("ImagePullFailed", False)
    assert finding.seen.endswith("(1 of the previous spec still serving)")


def test_trouble_of_older_pods_is_not_trouble_of_the_newest_spec() -> None:
    deployment = a_deployment().counting(2, updated=1).obj
    pods = an_older_pod("old", deployment).crashed().obj, a_pod("new", deployment).running().obj
    assert standing(seen(deployment, *pods))[0] == "RollingOut"


def test_a_new_model_is_starting_from_the_first_look_on() -> None:
    assert standing(seen(None)) == ("Starting", False, False)
    deployment = a_deployment().counting(1).obj
    assert standing(seen(deployment, a_pod("p", deployment).running().obj)) == ("Starting", False, False)


def test_a_pod_that_served_and_no_longer_answers_is_not_ready() -> None:
    deployment = a_deployment().counting(1).obj
    assert standing(seen(deployment, a_pod("p", deployment).silent().obj)) == ("NotReady", False, False)


def test_a_pod_whose_readiness_has_not_been_asked_yet_is_starting() -> None:
    deployment = a_deployment().counting(1).obj
    assert standing(seen(deployment, a_pod("p", deployment).started().obj)) == ("Starting", False, False)


def test_a_pod_that_lost_its_readiness_counts_at_once_even_if_the_deployment_lags() -> None:
    deployment = a_deployment().counting(1, ready=1).obj
    assert not judge(seen(deployment, a_pod("p", deployment).silent().obj))[1]


def test_no_replicas_asked_for_and_none_left_is_ready_and_says_that_nothing_serves() -> None:
    finding, ready = judge(seen(a_deployment(replicas=0).counting(0).obj, replicas=0))
    assert (finding.reason, ready) == ("ScaledToZero", True)
    assert "no pod runs" in finding.message


def test_a_model_that_scales_to_zero_is_not_done_before_the_last_pod_has_drained() -> None:
    deployment = a_deployment(replicas=0).counting(0).obj
    assert standing(seen(deployment, a_pod("p", deployment).ready().leaving().obj, replicas=0))[:2] == (
        "Scaling",
        False,
    )


def test_surplus_replicas_are_scaling_down() -> None:
    deployment = a_deployment().counting(3, ready=3).obj
    pods = [a_pod(f"p{number}", deployment).ready().obj for number in range(3)]
    assert standing(seen(deployment, *pods))[0] == "Scaling"


def test_no_progress_within_the_deadline_is_stalled() -> None:
    late = a_deployment().counting(1).saying("Progressing", "False", "ProgressDeadlineExceeded").obj
    assert standing(seen(late, a_pod("p", late).running().obj)) == ("StartStalled", False, True)


def test_past_the_deadline_a_server_that_still_says_how_far_it_is_is_not_stalled() -> None:
    late = a_deployment().counting(1).saying("Progressing", "False", "ProgressDeadlineExceeded").obj
    told = {"uid-p": loading_info()}
    assert standing(seen(late, a_pod("p", late).running().obj, told=told)) == ("Starting", False, False)


def test_a_starting_pod_is_told_with_its_phase_and_pace_and_is_gone_when_it_is_ready() -> None:
    deployment = a_deployment().counting(1).obj
    observation = seen(deployment, a_pod("p", deployment).running().obj, told={"uid-p": loading_info()})
    status = build_status(observation, {}, NOW)
    assert status["progress"] == "weights 43%, 35 s left"
    [pod] = status["pods"]
    assert (pod["pod"], pod["phase"], pod["loading"]["bytesPerSecond"]) == ("p", "Loading", 100)
    assert build_status(observation, status, "2027-01-01T00:00:00Z") == status
    assert "pods" not in build_status(ready_model(), status, NOW)


def test_who_is_asked_is_who_loads_who_has_just_become_ready_and_who_speaks_for_the_model() -> None:
    deployment = a_deployment(replicas=4).counting(4, ready=2).obj
    names = [a_pod(name, deployment) for name in ("loads", "waits", "spokesman", "ready-now")]
    pods = names[0].running(), names[1].waiting("ContainerCreating"), names[2].ready(), names[3].ready("2026-11-24T00Z")
    observation = seen(deployment, *(pod.obj for pod in pods), replicas=4)
    previous = {"pods": [{"podUid": "uid-ready-now"}]}
    assert [pod["metadata"]["name"] for pod in to_ask(observation, previous)] == ["loads", "ready-now", "spokesman"]
    known = {"startup": {"podUid": "uid-spokesman"}, "engine": {}}
    assert [pod["metadata"]["name"] for pod in to_ask(observation, known)] == ["loads"]


def late_rollout() -> tuple[Object, Object]:
    """A pod of the newest spec that is no further at the deadline, beside one that still serves the spec before."""
    late = a_deployment(replicas=2).counting(2, ready=1).saying("Progressing", "False", "ProgressDeadlineExceeded").obj
    late["spec"]["progressDeadlineSeconds"] = 90
    return late, an_older_pod("older", late).ready().obj


def test_a_rollout_past_its_deadline_says_how_long_and_who_still_serves() -> None:
    late, older = late_rollout()
    finding, _ = judge(seen(late, a_pod("p", late).running().obj, older, replicas=2))
    assert (finding.reason, finding.stalled) == ("RolloutStuck", True)
    assert "0/2 replicas" in finding.message
    assert "for 90 s" in finding.message
    assert "1 of the previous spec still serving" in finding.message


def test_a_rollout_whose_cause_is_known_says_that_and_the_deadline() -> None:
    late, older = late_rollout()
    pod = a_pod("p", late).unschedulable("0/1 nodes: Insufficient nvidia.com/gpu").obj
    finding, _ = judge(seen(late, pod, older, replicas=2))
    assert (finding.reason, finding.stalled) == ("InsufficientGPU", True)
    assert "Insufficient nvidia.com/gpu; no pod has got further for 90 s" in finding.message
    assert "1 of the previous spec still serving" in finding.message


def test_past_the_deadline_a_known_cause_keeps_its_reason_and_becomes_stalled() -> None:
    late = a_deployment().counting(1).saying("Progressing", "False", "ProgressDeadlineExceeded").obj
    pod = a_pod("p", late).unschedulable("0/1 nodes: Insufficient nvidia.com/gpu").obj
    assert standing(seen(late, pod)) == ("InsufficientGPU", False, True)


def test_a_problem_of_the_spec_wins_over_pods_that_still_serve() -> None:
    observation = ready_model()
    problem = Finding(Reason.INVALID_SPEC, "x", "y", stalled=True)
    assert standing(seen(observation.deployment, *observation.pods, problem=problem)) == ("InvalidSpec", False, True)


def test_exactly_one_condition_is_true_and_all_carry_generation_and_reason() -> None:
    stuck = seen(None, problem=Finding(Reason.INVALID_SPEC, "x", "y", stalled=True))
    for observation, expected in ((ready_model(), "Ready"), (seen(None), "Reconciling"), (stuck, "Stalled")):
        status = build_status(observation, {}, NOW)
        truths = {each["type"] for each in status["conditions"] if each["status"] == "True"}
        assert truths == {expected}
        assert {each["observedGeneration"] for each in status["conditions"]} == {3} == {status["observedGeneration"]}
        assert len({each["reason"] for each in status["conditions"]}) == 1


def test_transition_time_moves_only_when_status_flips() -> None:
    first = build_status(seen(None), {}, "2026-01-01T00:00:00Z")
    deployment = a_deployment().counting(1).obj
    pod = a_pod("p", deployment).unschedulable("full").obj
    second = build_status(seen(deployment, pod), first, "2026-01-02T00:00:00Z")
    assert {each["lastTransitionTime"] for each in second["conditions"]} == {"2026-01-01T00:00:00Z"}
    third = build_status(ready_model(), second, "2026-01-03T00:00:00Z")
    moved = {each["type"] for each in third["conditions"] if each["lastTransitionTime"] == "2026-01-03T00:00:00Z"}
    assert moved == {"Ready", "Reconciling"}


def test_the_same_observation_gives_the_same_status() -> None:
    status = build_status(ready_model(told=start_info()), {}, NOW)
    assert build_status(ready_model(), status, "2027-01-01T00:00:00Z") == status


def test_a_ready_pod_brings_engine_facts_and_its_timeline() -> None:
    status = build_status(ready_model(told=start_info()), {}, NOW)
    assert status["backend"] == "torch"
    assert status["engine"]["kvCache"]["tokens"] == 8192
    assert status["startup"] == {
        "pod": "p",
        "podUid": "uid-p",
        "created": "2026-11-24T11:59:00Z",
        "scheduled": "2026-11-24T11:59:01Z",
        "started": "2026-11-24T11:59:05Z",
        "ready": "2026-11-24T11:59:42Z",
        "seconds": 42,
        "runtimeSeconds": {"weights": 1.5, "ready": 3.25},
    }
    assert status["launched"]["image"] == "registry/minisgl-runtime:1"
    assert (status["available"], status["readyReplicas"]) == ("1/1", 1)
    assert status["selector"] == "minisgl.io/model=smollm2"


def test_engine_facts_of_an_older_pod_are_not_passed_off_as_the_new_ones() -> None:
    before = build_status(ready_model(told=start_info()), {}, NOW)
    deployment = a_deployment().counting(1, ready=1).obj
    after = build_status(seen(deployment, a_pod("q", deployment).ready().obj), before, NOW)
    assert after["startup"]["pod"] == "q"
    assert "engine" not in after


@pytest.mark.parametrize("observation", [seen(None), ready_model()])
def test_a_status_has_no_empty_fields(observation: Observation) -> None:
    status = build_status(observation, {}, NOW)
    assert condition({"status": status}, "Ready") is not None
    assert not [name for name, value in status.items() if value in (None, "", {}, [])]
