"""How many pods more or less, how long, and how many GPUs: what the spec says, its defaults, and what cannot be."""

from typing import Any

import pytest

from minisgl_operator import api
from minisgl_operator.errors import SpecError
from minisgl_operator.objects import Child, Object
from support.cluster_objects import build_children

CUDA = {"type": "cuda", "resourceName": "example.com/gpu"}


def deployment(**fields: Any) -> Object:
    return build_children(**fields)[Child.DEPLOYMENT]


def limits(**fields: Any) -> tuple[Any, Any]:
    rolling = deployment(**fields)["spec"]["strategy"]["rollingUpdate"]
    return rolling["maxSurge"], rolling["maxUnavailable"]


def test_limits_arrive_as_they_were_written() -> None:
    assert limits(rollout={"maxSurge": "25%", "maxUnavailable": 2}) == ("25%", 2)


def test_one_limit_alone_keeps_the_other_ones_default() -> None:
    assert limits(rollout={"maxSurge": 2}) == (2, 0)
    assert limits(device=CUDA, rollout={"maxSurge": 1}) == (1, 1)


@pytest.mark.parametrize(
    ("device", "rollout"),
    [
        ({"type": "cpu"}, {"maxSurge": 0}),
        ({"type": "cpu"}, {"maxSurge": "0%", "maxUnavailable": 0}),
        (CUDA, {"maxUnavailable": 0}),
        (CUDA, {"maxUnavailable": "0%"}),
    ],
)
def test_a_rollout_that_could_replace_no_pod_is_refused(device: Object, rollout: Object) -> None:
    with pytest.raises(SpecError, match=r"spec\.rollout\.maxSurge=.* set one of them to 1"):
        deployment(device=device, rollout=rollout)


def test_the_deadline_is_the_specs_or_longer_than_the_slowest_start() -> None:
    assert deployment(rollout={"progressDeadlineSeconds": 30})["spec"]["progressDeadlineSeconds"] == 30
    assert deployment()["spec"]["progressDeadlineSeconds"] == 3900


@pytest.mark.parametrize(
    "fields",
    [
        {"rollout": {"maxSurge": 2}},
        {"networkPolicy": {"enabled": False}},
        {"monitoring": {"enabled": True}},
        {"pause": True},
        {"replicas": 5},
    ],
    ids=str,
)
def test_what_is_not_about_the_pods_replaces_none_and_takes_no_newer_image(fields: dict[str, Any]) -> None:
    one, two = deployment(), deployment(**fields)
    assert one["spec"]["template"] == two["spec"]["template"]
    assert one["metadata"]["annotations"][api.SPEC_HASH] == two["metadata"]["annotations"][api.SPEC_HASH]


@pytest.mark.parametrize("part", ["requests", "limits"])
@pytest.mark.parametrize("count", [2, "2"])
def test_as_many_gpus_as_ranks_may_be_written_out(part: str, count: int | str) -> None:
    resources = {part: {"example.com/gpu": count}}
    built = deployment(device=CUDA, runtime={"tensorParallelSize": 2}, resources=resources)
    assert built["spec"]["template"]["spec"]["containers"][0]["resources"] == {"limits": {"example.com/gpu": 2}}


@pytest.mark.parametrize("part", ["requests", "limits"])
@pytest.mark.parametrize(("device", "ranks"), [(CUDA, 1), (CUDA, 4), ({**CUDA, "type": "cpu"}, 2)])
def test_another_number_of_gpus_is_refused_and_both_numbers_are_named(part: str, device: Object, ranks: int) -> None:
    with pytest.raises(SpecError, match=rf"spec\.resources\.{part}: example.com/gpu=2.*tensorParallelSize {ranks}"):
        deployment(device=device, runtime={"tensorParallelSize": ranks}, resources={part: {"example.com/gpu": 2}})
