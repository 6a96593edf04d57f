"""The whole story against a strict cluster in memory: what is written, what is not, and what status says."""

import asyncio
import copy
from collections.abc import Callable

import pytest

from minisgl_operator import api, errors
from minisgl_operator.api import Key
from minisgl_operator.metrics import Metrics
from minisgl_operator.objects import Child, Object
from minisgl_operator.reconcile import Reconciler
from support.cluster_objects import SETTINGS, loading_info, start_info
from support.stage import Stage

REQUIRED = [child for child in Child if not child.optional]


def test_a_new_model_gets_its_children_and_a_status_on_first_sight() -> None:
    stage = Stage()
    stage.reconcile()
    assert [resource for _, resource in stage.cluster.writes] == [
        "serviceaccounts",
        "services",
        "jobs",
        "status",
        "deployments",
        "networkpolicies",
        "status",
        "events",
    ]
    assert (stage.reason, stage.status["observedGeneration"]) == ("Starting", 1)


def test_a_model_becomes_ready_with_few_writes_and_one_event() -> None:
    stage = Stage()
    stage.reconcile()
    stage.cluster.run_pods(stage.key, ready=False)
    stage.reconcile()
    stage.cluster.run_pods(stage.key)
    stage.reconcile()
    assert len(stage.cluster.writes) <= 11
    assert stage.cluster.events == [("Normal", "Starting"), ("Normal", "Serving")]
    assert stage.status["engine"]["attentionBackend"] == "torch"


def test_a_steady_state_writes_nothing_and_asks_nobody() -> None:
    stage = Stage(resources={"requests": {"cpu": "0.5"}})
    stage.serve()
    for _ in range(5):
        stage.reconcile()
    assert stage.cluster.writes == []
    assert stage.asked == ["smollm2-0"]


def test_a_restarted_operator_writes_nothing_and_asks_nobody() -> None:
    stage = Stage()
    stage.serve()
    stage.reconciler = Reconciler(stage.cluster, SETTINGS, Metrics(), stage._ask)
    stage.reconcile()
    assert stage.cluster.writes == []
    assert stage.asked == ["smollm2-0"]


def test_a_status_written_wrong_by_hand_is_repaired() -> None:
    stage = Stage()
    stage.serve()
    right = dict(stage.status)
    stage.cluster.objects[api.PLURAL, *stage.key]["status"] = right | {"url": "http://wrong", "replicas": 7}
    stage.reconcile()
    assert stage.status == right


@pytest.mark.parametrize("child", [child for child in Child if child is not Child.POD_MONITOR])
def test_a_deleted_child_comes_back(child: Child) -> None:
    stage = Stage()
    stage.serve()
    stage.cluster.delete_by_hand(child, stage.key)
    stage.reconcile()
    assert ("patch", child.plural) in stage.cluster.writes
    stage.child(child)


def test_arguments_edited_by_hand_are_restored_and_what_others_added_survives() -> None:
    stage = Stage()
    stage.serve()
    before = list(stage.args)

    def meddle(deployment: Object) -> None:
        template = deployment["spec"]["template"]
        template["spec"]["containers"][0]["args"] = ["--dtype=float16"]
        template["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = "now"
        deployment["spec"]["replicas"] = 9

    stage.cluster.edit(Child.DEPLOYMENT, stage.key, meddle)
    stage.reconcile()
    deployment = stage.child(Child.DEPLOYMENT)
    assert (stage.args, deployment["spec"]["replicas"]) == (before, 1)
    assert deployment["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] == "now"


def test_there_and_back_again_leaves_the_children_as_they_were() -> None:
    stage = Stage()
    stage.serve()
    first = stage.child(Child.DEPLOYMENT)["spec"]["template"]["spec"].copy()
    placed = {"spec": {"nodeSelector": {"gpu": "h100"}}, "metadata": {"labels": {"team": "a"}}}
    stage.cluster.edit_model(stage.key, runtime={"pageSize": 64}, podTemplate=placed)
    stage.reconcile()
    assert "--page-size=64" in stage.args
    stage.cluster.edit_model(stage.key, runtime={}, podTemplate={})
    stage.reconcile()
    deployment = stage.child(Child.DEPLOYMENT)
    assert deployment["spec"]["template"]["spec"] == first
    assert "team" not in deployment["spec"]["template"]["metadata"]["labels"]


def test_a_bad_spec_leaves_the_children_alone_and_a_good_one_recovers() -> None:
    stage = Stage()
    stage.serve()
    stage.cluster.edit_model(stage.key, runtime={"numPages": 8, "numTokens": 8})
    stage.reconcile()
    assert [resource for _, resource in stage.cluster.writes] == ["status", "events"]
    assert (stage.reason, stage.ready["status"], stage.status["observedGeneration"]) == ("InvalidSpec", "False", 2)
    assert "--num-pages and --num-tokens" in stage.ready["message"]
    assert stage.cluster.events == [("Warning", "InvalidSpec")]
    stage.cluster.edit_model(stage.key, runtime={})
    stage.reconcile()
    assert (stage.reason, stage.status["observedGeneration"]) == ("Serving", 3)


def test_a_stored_spec_that_is_none_is_told_by_field_and_not_by_all_that_it_holds() -> None:
    stage = Stage(podTemplate={"spec": {"containers": [{"env": [{"name": "A", "value": "do-not-print"}]}]}})
    stage.reconcile()
    assert stage.reason == "InvalidSpec"
    assert "spec.podTemplate.spec.containers.0.name: Field required" in stage.ready["message"]
    assert "do-not-print" not in stage.ready["message"]


def test_what_the_api_server_refuses_is_an_invalid_spec_in_its_words() -> None:
    stage = Stage()
    stage.cluster.fail["patch deployments"] = errors.Refused("patch deployments", 422, "nodeSelector: bad label")
    stage.reconcile()
    assert stage.reason == "InvalidSpec"
    assert "nodeSelector: bad label" in stage.ready["message"]


def test_a_foreign_object_with_a_childs_name_is_reported_and_left_alone() -> None:
    stage = Stage()
    foreign = {"kind": "Service", "metadata": {"name": "smollm2", "namespace": "ns"}, "spec": {"type": "NodePort"}}
    stage.cluster.objects["services", "ns", "smollm2"] = foreign
    stage.reconcile()
    assert stage.reason == "NameConflict"
    assert [resource for _, resource in stage.cluster.writes] == ["status", "events"]
    assert foreign["spec"] == {"type": "NodePort"}


def test_a_recreated_model_waits_for_the_children_of_the_old_one() -> None:
    stage = Stage()
    stage.serve()
    stage.cluster.create_model()
    stage.cluster.objects[api.PLURAL, *stage.key]["metadata"]["uid"] = "new"
    again = stage.reconcile()
    assert (stage.reason, again) == ("Replacing", 1.0)
    for child in (*REQUIRED, Child.NETWORK_POLICY):
        stage.cluster.delete_by_hand(child, stage.key)
    stage.cluster.pod_list.clear()
    stage.reconcile()
    assert stage.child(Child.SERVICE)["metadata"]["ownerReferences"][0]["uid"] == "new"


def test_a_missing_right_is_told_in_status_and_looked_at_again() -> None:
    stage = Stage()
    stage.cluster.fail["patch deployments"] = errors.Forbidden("patch deployments", 403, "cannot patch deployments")
    assert stage.reconcile() == 15.0
    assert stage.reason == "Forbidden"
    assert "cannot patch deployments" in stage.ready["message"]
    stage.reconcile()
    assert stage.reason == "Starting"


@pytest.mark.parametrize("call", ["get model", "get services", "list pods", "patch services", "patch status"])
def test_an_outage_at_any_call_is_raised_and_the_next_look_completes_the_work(call: str) -> None:
    stage = Stage()
    stage.cluster.fail[call] = errors.Unavailable(call, 503, "down")
    with pytest.raises(errors.Unavailable):
        stage.reconcile()
    stage.reconcile()
    assert {child.plural for child in REQUIRED} <= {path[0] for path in stage.cluster.objects}
    assert stage.reason == "Starting"


def starts(metrics: Metrics, phase: str) -> float:
    """How many starts the histogram has seen, by phase."""
    labels = {"phase": phase}
    return metrics.registry.get_sample_value("minisgl_operator_cold_start_seconds_count", labels) or 0


def test_a_starting_pod_is_asked_every_ten_seconds_and_its_progress_is_told() -> None:
    stage = Stage()
    stage.answers = loading_info()
    stage.reconcile()
    stage.cluster.run_pods(stage.key, ready=False)
    assert stage.reconcile() == 10
    assert stage.status["progress"] == "weights 43%, 35 s left"
    stage.cluster.writes.clear()
    stage.seconds += 4
    assert stage.reconcile() == 6  # an event in between asks nobody, and writes nothing
    assert (stage.asked, stage.cluster.writes) == (["smollm2-0"], [])


def test_a_cold_start_is_observed_once_also_by_an_operator_that_was_started_meanwhile() -> None:
    stage = Stage()
    stage.answers = loading_info()
    stage.reconcile()
    stage.cluster.run_pods(stage.key, ready=False)
    stage.reconcile()
    stage.reconciler = Reconciler(stage.cluster, SETTINGS, stage.metrics, stage._ask)
    stage.answers = start_info()
    stage.cluster.run_pods(stage.key)
    for _ in range(3):
        stage.reconcile()
    assert (starts(stage.metrics, "whole"), starts(stage.metrics, "weights")) == (1, 1)
    assert "pods" not in stage.status
    later = Metrics()
    stage.reconciler = Reconciler(stage.cluster, SETTINGS, later, stage._ask)
    stage.reconcile()
    assert starts(later, "whole") == 0


def test_a_pod_that_becomes_ready_between_two_questions_brings_the_phases_of_its_whole_start() -> None:
    stage = Stage()
    stage.answers = loading_info()
    stage.reconcile()
    stage.cluster.run_pods(stage.key, ready=False)
    stage.reconcile()
    stage.seconds += 4
    stage.answers = start_info()
    stage.cluster.run_pods(stage.key)
    stage.reconcile()
    assert (starts(stage.metrics, "whole"), starts(stage.metrics, "weights")) == (1, 1)
    assert stage.status["startup"]["runtimeSeconds"] == {"weights": 1.5, "ready": 3.25}


def test_a_deleted_model_is_forgotten() -> None:
    stage = Stage()
    stage.serve()
    assert stage.reconciler.known() == [stage.key]
    del stage.cluster.objects[api.PLURAL, *stage.key]
    stage.reconcile()
    assert stage.reconciler.known() == []
    assert stage.cluster.writes == []
    assert stage.metrics.registry.get_sample_value("minisgl_operator_models", {"condition": "Ready"}) == 0


def test_models_are_counted_by_the_condition_that_is_true() -> None:
    stage = Stage()
    stage.serve()
    assert stage.metrics.registry.get_sample_value("minisgl_operator_models", {"condition": "Ready"}) == 1
    assert stage.metrics.registry.get_sample_value("minisgl_operator_models", {"condition": "Stalled"}) == 0


def test_a_pod_that_does_not_tell_its_facts_is_asked_again_later_and_rarer() -> None:
    stage = Stage()
    stage.answers = None
    stage.reconcile()
    stage.cluster.run_pods(stage.key)
    waits = []
    for _ in range(3):
        waits.append(stage.reconcile())
        stage.seconds += waits[-1] or 0
    assert stage.reason == "Serving"
    assert waits == [10, 20, 40]
    stage.answers = start_info()
    assert stage.reconcile() is None
    assert stage.status["engine"]["attentionBackend"] == "torch"
    assert stage.status["startup"]["runtimeSeconds"] == {"weights": 1.5, "ready": 3.25}


def test_scaling_to_zero_ends_ready_and_up_again_starts() -> None:
    stage = Stage()
    stage.serve()
    stage.cluster.edit_model(stage.key, replicas=0)
    stage.reconcile()
    stage.cluster.run_pods(stage.key)
    stage.reconcile()
    assert (stage.reason, stage.status["available"]) == ("ScaledToZero", "0/0")
    stage.cluster.edit_model(stage.key, replicas=2)
    stage.reconcile()
    assert (stage.reason, stage.ready["status"]) == ("Starting", "False")


def test_a_model_that_is_another_than_was_read_never_gets_this_ones_status() -> None:
    stage = Stage()
    past = copy.deepcopy(stage.cluster.objects[api.PLURAL, *stage.key])
    stage.cluster.objects[api.PLURAL, *stage.key]["metadata"] |= {"uid": "other", "resourceVersion": "9"}
    before = copy.deepcopy(stage.status)

    async def read_the_past(_: Key) -> Object:
        return past

    stage.cluster.model = read_the_past  # type: ignore[method-assign]
    with pytest.raises(errors.Conflict):
        stage.reconcile()
    assert stage.status == before


def settled_on_paper(stage: Stage) -> bool:
    async def look() -> bool:
        return await stage.reconciler.is_settled(stage.key, await stage.cluster.snapshot())

    return asyncio.run(look())


def cut_service(stage: Stage) -> None:
    stage.cluster.delete_by_hand(Child.SERVICE, stage.key)


def edit_arguments(stage: Stage) -> None:
    def change(deployment: Object) -> None:
        deployment["spec"]["template"]["spec"]["containers"][0]["args"] = ["--shell"]

    stage.cluster.edit(Child.DEPLOYMENT, stage.key, change)


def take_name(stage: Stage) -> None:
    stage.cluster.objects["services", *stage.key]["metadata"] = {"name": "smollm2", "namespace": "ns"}


TO_DO = {
    "a child is missing": cut_service,
    "a child was edited": edit_arguments,
    "a child's name is somebody else's": take_name,
    "a pod does not answer": lambda stage: stage.cluster.run_pods(stage.key, ready=False),
    "the spec changed": lambda stage: stage.cluster.edit_model(stage.key, runtime={"pageSize": 64}),
    "the spec is bad": lambda stage: stage.cluster.edit_model(stage.key, runtime={"numPages": 8, "numTokens": 8}),
}


@pytest.mark.parametrize("change", TO_DO.values(), ids=TO_DO)
def test_on_paper_a_model_is_settled_exactly_when_a_reconcile_would_write_nothing(
    change: Callable[[Stage], None],
) -> None:
    stage = Stage()
    stage.serve()

    assert settled_on_paper(stage)
    change(stage)
    stage.cluster.writes.clear()
    assert not settled_on_paper(stage)
    assert stage.cluster.writes == []
    stage.reconcile()
    assert stage.cluster.writes != []


def test_a_model_that_is_new_or_not_yet_known_to_its_pod_is_not_settled_on_paper() -> None:
    stage = Stage()
    stage.answers = None
    assert not settled_on_paper(stage)
    stage.reconcile()
    stage.cluster.run_pods(stage.key)
    stage.reconcile()
    assert (stage.reason, len(stage.asked)) == ("Serving", 1)
    assert not settled_on_paper(stage)
    assert len(stage.asked) == 1
