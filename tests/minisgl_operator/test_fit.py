"""The operator's verdict: where the memory is known from, what is refused with which change, and what is only told."""

from typing import Any

import pytest

from minisgl.info import Figure
from minisgl_operator.api import Key, Spec
from minisgl_operator.fit import beside, foresee, known_memory
from minisgl_operator.objects import Object
from minisgl_operator.reasons import Finding
from support.cluster_objects import SHAPE, a_spec, server_info

GPU: dict[str, Any] = {"type": "cuda", "resourceName": "nvidia.com/gpu"}


def spec(**fields: Any) -> Spec:
    return Spec.model_validate(a_spec(**fields))


def judge(**fields: Any) -> tuple[Object, Finding | None]:
    return foresee(Key("ns", "smollm2"), spec(**fields), SHAPE)


def refused(**fields: Any) -> Finding:
    finding = judge(**fields)[1]
    assert finding is not None
    return finding


def limited(memory: str | int) -> dict[str, Any]:
    return {"resources": {"limits": {"memory": memory}}}


def on_nodes(**labels: str) -> dict[str, Any]:
    return {"device": GPU, "podTemplate": {"spec": {"nodeSelector": labels}}}


@pytest.mark.parametrize(
    ("fields", "num_bytes", "field"),
    [
        (limited("2Gi"), 2 * 2**30, "resources.limits.memory"),
        (limited(10**9), 10**9, "resources.limits.memory"),
        ({"device": GPU | {"gpu": "h200"}}, 143_771 * 2**20, "device.gpu"),
        ({"device": GPU | {"gpu": "h200", "memory": "20Gi"}}, 20 * 2**30, "device.memory"),
        (on_nodes(**{"nvidia.com/gpu.product": "NVIDIA-L4"}), 23_034 * 2**20, "gpu.product"),
        (on_nodes(**{"nvidia.com/gpu.memory": "46068"}), 46_068 * 2**20, "gpu.memory"),
    ],
)
def test_the_memory_is_read_from_what_the_spec_tells(fields: dict[str, Any], num_bytes: int, field: str) -> None:
    known = known_memory(spec(**fields))
    assert known is not None
    assert known.num_bytes == num_bytes
    assert field in known.field


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"device": GPU},
        limited("500m"),
        limited("9e30"),
        {"device": GPU | {"resourceName": "nvidia.com/mig-1g.10gb", "gpu": "a100-80gb"}},
        on_nodes(**{"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"})
        | {"device": GPU | {"resourceName": "nvidia.com/mig-1g.10gb"}},
        on_nodes(**{"nvidia.com/gpu.memory": "9" * 30}),
        on_nodes(**{"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb"}),
    ],
)
def test_what_nobody_tells_is_not_judged(fields: dict[str, Any]) -> None:
    told, finding = judge(**fields)
    assert (finding, "fits" in told) == (None, False)
    assert told["perRank"]["weightBytes"]["planned"] > 0
    assert told["leastMemoryBytes"] > 0


def test_a_limit_that_is_too_small_is_refused_with_numbers_and_the_limit_that_fits() -> None:
    finding = refused(**limited("1Gi"))
    assert (finding.reason, finding.stalled) == ("DoesNotFit", True)
    for part in ("weights 621 MiB", "KV cache of 256 tokens", "of 1.0 GiB", "(resources.limits.memory)"):
        assert part in finding.seen
    assert "set spec.resources.limits.memory to " in finding.action
    wanted = finding.action.rsplit("limits.memory to ", 1)[1].split()[0]
    told, mended = judge(**limited(wanted))
    assert (mended, told["fits"]) == (None, True)


def test_the_change_that_is_proposed_fits() -> None:
    runtime = {"maxPrefillLength": 65536}
    finding = refused(device=GPU | {"memory": "5500Mi"}, runtime=runtime)
    assert "set spec.runtime.maxPrefillLength to 4096, or use GPUs of " in finding.action
    assert judge(device=GPU | {"memory": "5500Mi"}, runtime=runtime | {"maxPrefillLength": 4096})[1] is None


def test_ranks_that_do_not_divide_the_heads_are_refused_with_the_sizes_that_work() -> None:
    finding = refused(device=GPU, runtime={"tensorParallelSize": 2})
    assert (finding.reason, finding.stalled) == ("InvalidArguments", True)
    assert "sizes that work: 1, 3" in finding.seen
    assert finding.action


def test_a_context_beyond_the_models_is_refused_before_a_pod() -> None:
    assert "longer than the model's context of 8192" in refused(runtime={"maxSeqLenOverride": 9000}).seen


def test_what_the_engine_found_stands_beside_the_prediction() -> None:
    plan = judge(**limited("3Gi"))[0]
    engine = server_info().engine.model_dump(by_alias=True)
    assert beside(plan, None) == beside(plan, engine) == plan, "an older runtime tells nothing"
    engine["memory"] = {"weightBytes": Figure(planned=1, real=2).model_dump(), "activationBytes": {"planned": 3}}
    shown = beside(plan, engine)["perRank"]
    assert shown["weightBytes"] == plan["perRank"]["weightBytes"] | {"real": 2}
    assert shown["activationBytes"] == plan["perRank"]["activationBytes"]
