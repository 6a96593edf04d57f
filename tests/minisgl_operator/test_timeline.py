"""How pods come up: phases, seconds and paces, from what Kubernetes and the servers report."""

import pytest

from minisgl.info import StartInfo
from minisgl_operator import timeline
from support.cluster_objects import PodBuilder, a_deployment, a_pod, loading_info, start_info

DEPLOYMENT = a_deployment().counting(1).obj


def pod(name: str = "p") -> PodBuilder:
    return a_pod(name, DEPLOYMENT)


@pytest.mark.parametrize(
    ("at", "phase"),
    [
        (pod(), "Scheduling"),
        (pod().unschedulable("full"), "Scheduling"),
        (pod().waiting("ContainerCreating"), "Preparing"),
        (pod().waiting("ContainerCreating").networked(), "Image"),
        (pod().waiting("ErrImagePull").networked(), "Image"),
        (pod().running(), "Loading"),
        (pod().crashed(), "Failing"),
        (pod().started(), "Loading"),
        (pod().silent(), "NotReady"),
    ],
)
def test_a_pod_waits_for_one_thing_at_a_time(at: PodBuilder, phase: str) -> None:
    assert timeline.pod_start(at.obj, {}).phase == phase


def test_a_pod_that_loads_has_bytes_pace_and_eta() -> None:
    start = timeline.pod_start(pod().running().obj, {"uid-p": loading_info()})
    assert start.loading is not None
    assert (start.loading.phase, start.loading.done, start.loading.total) == ("weights", 4300, 10_000)
    assert (start.loading.bytes_per_second, start.loading.eta_seconds) == (100, 35)
    assert (start.created, start.scheduled, start.started) == (
        "2026-11-24T11:59:00Z",
        "2026-11-24T11:59:01Z",
        "2026-11-24T11:59:05Z",
    )


def test_what_a_server_said_before_it_crashed_is_not_told() -> None:
    assert timeline.pod_start(pod().running().crashed().obj, {"uid-p": loading_info()}).loading is None


def test_the_newest_ten_pods_that_are_not_ready_are_told() -> None:
    pods = [pod(f"p{number:02}").created(f"2026-11-24T11:{number:02}:00Z").obj for number in range(12)]
    pods += [pod("ready").ready().obj, pod("leaving").leaving().obj, pod("evicted").evicted("full").obj]
    assert [each["metadata"]["name"] for each in timeline.starting(pods)] == [f"p{n:02}" for n in range(11, 1, -1)]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ([], ""),
        ([pod().waiting("ContainerCreating").networked()], "Image"),
        ([pod().running()], "Loading"),
        ([pod("q").running(), pod().waiting("ContainerCreating")], "Preparing"),
    ],
)
def test_progress_is_that_of_the_slowest_pod(told: list[PodBuilder], words: str) -> None:
    assert timeline.progress([timeline.pod_start(each.obj, {}) for each in told]) == words


def test_progress_of_a_load_is_its_share_and_what_is_left() -> None:
    start = timeline.pod_start(pod().running().obj, {"uid-p": loading_info()})
    assert timeline.progress([start]) == "weights 43%, 35 s left"
    bare = StartInfo.model_validate({"status": "starting", "place": {"phase": "warm-up", "seconds": 2}})
    assert timeline.progress([timeline.pod_start(pod().running().obj, {"uid-p": bare})]) == "warm-up"


def test_a_finished_start_has_the_seconds_of_every_phase() -> None:
    told = {"spawn": 0.1, "import": 2.0, "weights": 12.5, "tokenizer": 1.0, "warm-up": 13.0, "first-answer": 14.0}
    info = start_info().model_copy(update={"startup_seconds": told | {"of another image": 9.0}})
    assert timeline.phase_seconds(pod().networked("2026-11-24T11:59:03Z").ready().obj, info) == {
        "Scheduling": 1,
        "Preparing": 2,
        "Image": 2,
        "Loading": 37,
        "import": 2.0,
        "weights": 10.5,
        "warm-up": 0.5,
        "first-answer": 1.0,
        "whole": 42,
    }


def test_a_phase_that_was_longer_than_the_whole_start_is_not_believed() -> None:
    told = {"import": -1e300, "weights": 12.5, "warm-up": 1e300}
    info = start_info().model_copy(update={"startup_seconds": told})
    found = timeline.phase_seconds(pod().ready().obj, info)
    assert found.keys() & told.keys() == {"weights"}


def test_a_start_with_crashes_tells_only_the_whole() -> None:
    crashed = pod().ready()
    crashed.obj["status"]["containerStatuses"][0]["restartCount"] = 1
    assert timeline.phase_seconds(crashed.obj, start_info()) == {"whole": 42}


def test_what_runs_is_told_with_the_images_digest_and_the_whole_command_line() -> None:
    ready = pod().asking("memory", "1Gi").ready()
    ready.obj["spec"]["containers"][0]["args"] = ["--model-path", "/models/x"]
    ready.obj["status"]["containerStatuses"][0]["imageID"] = "registry/minisgl-runtime@sha256:abc"
    launched = timeline.launched(ready.obj)
    assert (launched.image_digest, launched.args) == ("sha256:abc", ["--model-path", "/models/x"])
