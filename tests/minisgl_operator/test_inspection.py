"""A model is asked once per revision, by a small restricted Job; its Deployment waits for what comes of it."""

import asyncio
import itertools
import json
from typing import Any

import pytest

from minisgl.plan.inspection import Report
from minisgl.termination import Reason, Termination
from minisgl_operator import api
from minisgl_operator.errors import Unavailable
from minisgl_operator.inspection import LOOK_AGAIN_SECONDS, read_answer
from minisgl_operator.metrics import Metrics
from minisgl_operator.objects import Child, Object, condition
from minisgl_operator.reconcile import Reconciler
from support.cluster_objects import NOW, SETTINGS, SHAPE, PodBuilder, an_inspection, start_info
from support.fake_cluster import FakeCluster

LIMIT = {"limits": {"memory": "1Gi"}}


class Stage:
    """One model, and a clock that moves with every look."""

    def __init__(self, name: str = "smollm2", **fields: Any) -> None:
        self.cluster = FakeCluster()
        self.key = self.cluster.create_model(name, **fields)
        self.restart()

    def restart(self) -> None:
        ticks = itertools.count()

        async def ask(pod: Object) -> Any:
            return start_info()

        now = lambda: f"2026-11-24T12:{next(ticks):02}:00Z"  # noqa: E731
        self.reconciler = Reconciler(self.cluster, SETTINGS, Metrics(), ask, now=now)

    def reconcile(self) -> float | None:
        return asyncio.run(self.reconciler.reconcile(self.key))

    @property
    def status(self) -> Object:
        found: Object = self.cluster.objects[api.PLURAL, *self.key]["status"]
        return found

    def reason(self, kind: str = "Ready") -> str:
        found = condition({"status": self.status}, kind)
        assert found is not None
        return f"{found['status']} {found['reason']}"

    def message(self) -> str:
        found = condition({"status": self.status}, "Ready")
        assert found is not None
        return str(found["message"])

    @property
    def jobs(self) -> list[str]:
        return [path[2] for path in self.cluster.objects if path[0] == "jobs"]

    @property
    def has_deployment(self) -> bool:
        return (Child.DEPLOYMENT.plural, *self.key) in self.cluster.objects

    def finished_jobs_go(self) -> None:
        """The time to live of finished Jobs is over."""
        for path in [path for path in self.cluster.objects if path[0] == "jobs"]:
            del self.cluster.objects[path], self.cluster.owned[path]


def a_running_inspection() -> PodBuilder:
    pod = an_inspection().running()
    pod.obj["status"]["phase"] = "Running"
    return pod


def left(reason: Reason, message: str) -> PodBuilder:
    return an_inspection(1, Termination(reason=reason, message=message).model_dump_json(exclude_none=True))


def test_a_model_is_asked_before_it_has_a_deployment() -> None:
    stage = Stage()
    stage.cluster.inspection = a_running_inspection()
    assert stage.reconcile() == LOOK_AGAIN_SECONDS, "no event tells that a Job has got no pod"
    assert stage.reason("Reconciling") == "True Inspecting"
    assert (len(stage.jobs), stage.has_deployment) == (1, False)
    stage.cluster.inspection = an_inspection()
    stage.reconcile()
    assert (len(stage.jobs), stage.has_deployment) == (1, True)
    assert stage.status["plan"]["model"]["numLayers"] == SHAPE.num_layers


def test_a_model_that_is_known_is_asked_no_more() -> None:
    stage = Stage()
    stage.reconcile()
    stage.cluster.run_pods(stage.key)
    stage.reconcile()
    stage.finished_jobs_go()
    stage.cluster.writes.clear()
    stage.restart()
    for _ in range(3):
        stage.reconcile()
    assert (stage.cluster.writes, stage.jobs) == ([], [])
    stage.cluster.edit_model(stage.key, runtime={"numTokens": 512})
    stage.reconcile()
    assert stage.jobs == [], "other arguments, same model"
    stage.cluster.edit_model(stage.key, model={"source": "pvc://models/other"})
    stage.reconcile()
    assert len(stage.jobs) == 1


def test_the_same_bucket_of_another_store_is_asked_anew() -> None:
    stage = Stage(model={"source": "s3://bucket/model", "s3": {"endpoint": "http://one:9000"}})
    stage.reconcile()
    stage.finished_jobs_go()
    stage.cluster.edit_model(stage.key, model={"source": "s3://bucket/model", "s3": {"endpoint": "http://two:9000"}})
    stage.reconcile()
    assert len(stage.jobs) == 1


def test_what_does_not_fit_gets_no_deployment_until_it_does() -> None:
    stage = Stage(resources=LIMIT)
    stage.reconcile()
    assert stage.reason("Stalled") == "True DoesNotFit"
    assert "limits.memory to 1" in stage.message()
    assert (stage.has_deployment, stage.status["plan"]["fits"]) == (False, False)
    stage.cluster.writes.clear()
    stage.reconcile()
    assert stage.cluster.writes == []
    stage.cluster.edit_model(stage.key, resources={"limits": {"memory": "3Gi"}})
    stage.reconcile()
    assert (stage.has_deployment, stage.status["plan"]["fits"], len(stage.jobs)) == (True, True, 1)


def test_pods_of_the_last_good_spec_serve_on_when_the_new_one_does_not_fit() -> None:
    stage = Stage(resources={"limits": {"memory": "3Gi"}})
    stage.reconcile()
    stage.cluster.run_pods(stage.key)
    stage.reconcile()
    before = json.dumps(stage.cluster.objects[Child.DEPLOYMENT.plural, *stage.key], sort_keys=True)
    stage.cluster.edit_model(stage.key, resources=LIMIT)
    stage.reconcile()
    assert stage.reason("Stalled") == "True DoesNotFit"
    assert "pods of the last good spec are left alone" in stage.message()
    assert json.dumps(stage.cluster.objects[Child.DEPLOYMENT.plural, *stage.key], sort_keys=True) == before


def test_while_a_new_spec_is_held_back_replicas_are_those_of_the_last_good_one() -> None:
    stage = Stage()
    stage.reconcile()
    stage.cluster.run_pods(stage.key)
    stage.reconcile()
    deployment = stage.cluster.objects[Child.DEPLOYMENT.plural, *stage.key]
    before = json.dumps(deployment["spec"]["template"], sort_keys=True)
    stage.cluster.inspection = an_inspection().waiting("ErrImagePull", "no such image")
    stage.cluster.inspection.obj["status"]["phase"] = "Pending"
    stage.cluster.edit_model(stage.key, image="registry/none:1", replicas=3)
    stage.reconcile()
    assert stage.reason() == "False ImagePullFailed"
    assert (deployment["spec"]["replicas"], stage.status["available"]) == (3, "1/3")
    assert json.dumps(deployment["spec"]["template"], sort_keys=True) == before
    stage.cluster.writes.clear()
    stage.reconcile()
    assert stage.cluster.writes == []
    stage.cluster.edit_model(stage.key, replicas=2)
    stage.reconcile()
    assert deployment["spec"]["replicas"] == 2
    stage.cluster.inspection = an_inspection()
    stage.cluster.edit_model(stage.key, image="registry/there:1", replicas=4)
    stage.reconcile()
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "registry/there:1"
    assert deployment["spec"]["replicas"] == 4


def run_out_of_time(stage: Stage) -> None:
    """The Job's time is over: its pod is gone, and a condition says so."""
    stage.cluster.inspection = None
    for path in stage.cluster.objects:
        if path[0] == "jobs":
            over = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}
            stage.cluster.objects[path]["status"] = {"conditions": [over]}


@pytest.mark.parametrize("serves", [True, False])
def test_who_serves_never_makes_way_for_an_image_that_cannot_be_pulled(serves: bool) -> None:
    stage = Stage()
    if serves:
        stage.reconcile()
        stage.cluster.run_pods(stage.key)
        stage.reconcile()
        stage.finished_jobs_go()
        stage.cluster.edit_model(stage.key, image="registry/none:1")
    stage.cluster.inspection = an_inspection().waiting("ErrImagePull", "no such image")
    stage.cluster.inspection.obj["status"]["phase"] = "Pending"
    stage.reconcile()
    run_out_of_time(stage)
    stage.cluster.writes.clear()
    stage.reconcile()
    if not serves:
        assert stage.has_deployment, "its pods tell"
        return
    assert (stage.reason(), stage.cluster.writes) == ("False ImagePullFailed", [])
    stage.finished_jobs_go()
    stage.reconcile()
    assert stage.cluster.writes[0] == ("patch", "jobs"), "it is tried again"


def test_a_pod_that_is_there_is_never_judged_again() -> None:
    stage = Stage()
    stage.reconcile()
    stage.cluster.run_pods(stage.key)
    stage.reconcile()
    del stage.status["plan"]  # as after an operator that made none
    stage.finished_jobs_go()
    stage.cluster.edit_model(stage.key, replicas=2)
    stage.reconcile()
    assert stage.jobs == []
    assert stage.cluster.objects[Child.DEPLOYMENT.plural, *stage.key]["spec"]["replicas"] == 2


def test_a_shape_that_another_release_or_definition_left_is_asked_for_anew() -> None:
    stage = Stage()
    stage.reconcile()
    stage.cluster.run_pods(stage.key)
    stage.reconcile()
    stage.finished_jobs_go()
    del stage.status["plan"]["model"]["numHeads"]
    stage.reconcile()
    assert (stage.reason(), stage.jobs) == ("True Serving", []), "a pod that is there is not judged"
    stage.cluster.edit_model(stage.key, resources=LIMIT)
    stage.reconcile()
    assert stage.reason("Stalled") == "True DoesNotFit"
    assert stage.status["plan"]["model"]["numHeads"] == SHAPE.num_heads


def test_a_model_that_is_not_there_is_told_without_a_pod_of_it_and_found_later() -> None:
    stage = Stage()
    stage.cluster.inspection = left(Reason.MODEL_NOT_FOUND, "/models/smollm2 holds no config.json")
    stage.reconcile()
    assert stage.reason("Stalled") == "True ModelNotFound"
    assert "holds no config.json" in stage.message()
    assert not stage.has_deployment
    stage.finished_jobs_go()
    stage.cluster.inspection = a_running_inspection()
    stage.cluster.writes.clear()
    stage.reconcile()
    assert stage.cluster.writes == [("patch", "jobs")], "it is asked again, and status stays as it is meanwhile"
    stage.cluster.inspection = an_inspection()
    stage.reconcile()
    assert (stage.has_deployment, "problem" in stage.status["plan"]) == (True, False)


def test_models_that_are_made_together_from_one_source_share_an_answer() -> None:
    stage = Stage()
    stage.cluster.inspection = an_inspection()
    stage.reconcile()
    stage.reconcile()
    twin = stage.cluster.create_model("twin")
    asyncio.run(stage.reconciler.reconcile(twin))
    assert (Child.DEPLOYMENT.plural, *twin) in stage.cluster.objects
    assert len(stage.jobs) == 1
    plans = [stage.cluster.objects[api.PLURAL, *key]["status"]["plan"] for key in (stage.key, twin)]
    assert plans[0] == plans[1]
    other = stage.cluster.create_model("other", model={"source": "pvc://models/other"})
    asyncio.run(stage.reconciler.reconcile(other))
    assert len(stage.jobs) == 2, "another source is asked for by itself"


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (an_inspection().unschedulable('persistentvolumeclaim "models" not found.'), "False ReferenceNotFound"),
        (an_inspection().waiting("ErrImageNeverPull", "not there"), "False ImagePullFailed"),
    ],
)
def test_a_job_whose_pod_cannot_run_is_diagnosed_as_any_pod(pod: PodBuilder, reason: str) -> None:
    pod.obj["status"]["phase"] = "Pending"
    if reason.endswith("ReferenceNotFound"):
        del pod.obj["status"]["containerStatuses"]
    stage = Stage()
    stage.cluster.inspection = pod
    assert stage.reconcile() == LOOK_AGAIN_SECONDS
    assert (stage.reason(), stage.has_deployment) == (reason, False)


@pytest.mark.parametrize(
    "pod",
    [
        an_inspection(2, Termination(reason=Reason.INVALID_ARGUMENTS, message="unknown").model_dump_json()),
        left(Reason.START_FAILED, "the hub did not answer"),
        an_inspection(137, ""),
        an_inspection(0, "not JSON"),
        an_inspection(0, "{}"),
        None,
    ],
    ids=["an image without inspect", "no hub", "killed", "no JSON", "another JSON", "no pod"],
)
def test_where_no_answer_can_come_the_pods_themselves_tell(pod: PodBuilder | None) -> None:
    stage = Stage()
    stage.cluster.inspection = pod
    stage.reconcile()
    stage.reconcile()  # minutes later, by this clock
    assert stage.has_deployment
    assert "model" not in stage.status["plan"]


def test_a_job_that_ran_out_of_time_gives_way() -> None:
    job = {
        "metadata": {},
        "status": {"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}]},
    }
    answer = read_answer(job, [], NOW)
    assert (answer.report, answer.finding) == (None, None)
    assert read_answer({"metadata": {"creationTimestamp": NOW}}, [], NOW).finding is not None


def test_a_claim_for_one_pod_that_a_pod_has_is_not_inspected_beside_it() -> None:
    stage = Stage(rollout={"maxSurge": 0, "maxUnavailable": 1})
    stage.cluster.create_claim("models", "ReadWriteOncePod")
    stage.reconcile()
    assert len(stage.jobs) == 1, "nobody has it yet"
    stage.cluster.run_pods(stage.key)
    stage.reconcile()
    stage.finished_jobs_go()
    stage.cluster.inspection = a_running_inspection()  # as one that waits for the volume
    stage.cluster.edit_model(stage.key, model={"source": "pvc://models/other"})
    stage.reconcile()
    assert stage.jobs == []
    deployment = stage.cluster.objects[Child.DEPLOYMENT.plural, *stage.key]
    assert "--model-path=/models/other" in json.dumps(deployment)


@pytest.mark.parametrize("call", ["patch deployments", "patch networkpolicies"])
def test_the_answer_outlives_a_failure_between_it_and_the_status(call: str) -> None:
    stage = Stage()
    stage.cluster.fail[call] = Unavailable(call, 503, "down")
    with pytest.raises(Unavailable):
        stage.reconcile()
    stage.restart()
    stage.reconcile()
    assert stage.status["plan"]["model"]["numLayers"] == SHAPE.num_layers
    assert len(stage.jobs) == 1


@pytest.mark.parametrize("change", [{"num_heads": 10**20}, {"num_layers": 10**9}, {"num_layers": 0}, {"head_dim": 0}])
def test_a_shape_with_which_no_plan_can_be_made_is_no_answer(change: dict[str, int]) -> None:
    report = Report(model=SHAPE.model_copy(update=change)).model_dump_json(by_alias=True)
    assert read_answer({"metadata": {}}, [an_inspection(0, report).obj], NOW).report is None
