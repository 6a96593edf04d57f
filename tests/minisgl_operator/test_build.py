"""The objects of a model: whole ones against golden files, single rules as sentences.

Golden files are the contract between releases: a changed byte restarts pods. MINISGL_UPDATE_GOLDEN=1 rewrites them.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from minisgl.argv import parse_args
from minisgl.server.supervisor import HARD_END_SECONDS
from minisgl_operator import api
from minisgl_operator.errors import SpecError
from minisgl_operator.objects import Child, Object
from support.cluster_objects import SETTINGS, a_spec, build_children

GOLDEN = Path(__file__).parent / "golden"
GPU_MODEL: dict[str, Any] = {
    "model": {
        "source": "hf://meta-llama/Llama-3.3-70B-Instruct@main",
        "servedName": "llama",
        "tokenSecret": {"name": "hf", "key": "token"},
    },
    "device": {"type": "cuda", "resourceName": "nvidia.com/gpu"},
    "runtime": {"tensorParallelSize": 4, "memoryRatio": 0.85, "numPages": 1000000, "disablePynccl": True},
    "replicas": 2,
    "image": "other/runtime:2",
    "resources": {"requests": {"cpu": "4"}, "limits": {"memory": "64Gi"}},
    "podTemplate": {
        "metadata": {"labels": {"team": "a", api.MODEL_LABEL: "stolen"}, "annotations": {"note": "x"}},
        "spec": {
            "nodeSelector": {"gpu": "h100"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "runtimeClassName": "nvidia",
            "imagePullSecrets": [{"name": "registry"}],
        },
    },
}


def deployment(**fields: Any) -> Object:
    return build_children(**fields)[Child.DEPLOYMENT]


def pod_spec(**fields: Any) -> Object:
    spec: Object = deployment(**fields)["spec"]["template"]["spec"]
    return spec


def container(**fields: Any) -> Object:
    (found,) = pod_spec(**fields)["containers"]
    return dict(found)


@pytest.mark.parametrize(("name", "fields"), [("cpu", {}), ("gpu", GPU_MODEL)])
def test_the_children_are_those_of_the_golden_file(name: str, fields: dict[str, Any]) -> None:
    built = list(build_children(**fields).values())
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("MINISGL_UPDATE_GOLDEN"):
        path.write_text(yaml.safe_dump_all(built, sort_keys=False, width=110))
    assert built == list(yaml.safe_load_all(path.read_text()))


def test_a_gpu_pod_is_checked_on_its_own_gpus_before_the_server_starts() -> None:
    spec = pod_spec(**GPU_MODEL)
    (check,), (server,) = spec["initContainers"], spec["containers"]
    assert check["args"] == ["plan", "--check", *server["args"]]
    for name in ("image", "resources", "volumeMounts", "env", "securityContext"):
        assert check[name] == server[name]
    assert "initContainers" not in pod_spec(), "on a CPU the server finds out as fast"


def test_what_is_known_of_a_gpu_restarts_no_pod() -> None:
    device = GPU_MODEL["device"]
    assert pod_spec(**GPU_MODEL) == pod_spec(**(GPU_MODEL | {"device": device | {"gpu": "h200", "memory": "80Gi"}}))


def test_the_same_spec_gives_the_same_bytes_whatever_the_order_of_its_keys() -> None:
    runtime = {"dtype": "float32", "pageSize": 32}
    backwards = dict(reversed(runtime.items()))
    assert deployment(runtime=runtime) == deployment(runtime=backwards)


def test_an_explicit_default_is_the_same_as_none() -> None:
    assert deployment(podTemplate={}, resources={}) == deployment()


def test_replicas_change_neither_template_nor_spec_hash() -> None:
    one, two = deployment(replicas=1), deployment(replicas=2)
    assert one["spec"]["template"] == two["spec"]["template"]
    for name in (api.SPEC_HASH, api.TEMPLATE_HASH):
        assert one["metadata"]["annotations"][name] == two["metadata"]["annotations"][name]
    assert one["metadata"]["annotations"][api.APPLIED_HASH] != two["metadata"]["annotations"][api.APPLIED_HASH]


def test_a_newer_operator_keeps_the_image_of_a_model_nobody_touched() -> None:
    live = deployment()
    newer = SETTINGS.model_copy(update={"runtime_image": "registry/minisgl-runtime:2"})
    assert build_children(settings=newer, live=live)[Child.DEPLOYMENT] == live


@pytest.mark.parametrize("known", [{"gpu": "h200"}, {"memory": "80Gi"}], ids=str)
def test_what_is_known_of_a_gpu_takes_no_newer_image(known: dict[str, str]) -> None:
    newer = SETTINGS.model_copy(update={"runtime_image": "registry/minisgl-runtime:2"})
    live = deployment(device={"type": "cuda"})
    built = build_children(settings=newer, live=live, device={"type": "cuda"} | known)[Child.DEPLOYMENT]
    assert built == live


def test_a_changed_spec_takes_the_newer_image() -> None:
    newer = SETTINGS.model_copy(update={"runtime_image": "registry/minisgl-runtime:2"})
    built = build_children(settings=newer, live=deployment(), runtime={"pageSize": 32})
    assert built[Child.DEPLOYMENT]["metadata"]["annotations"][api.IMAGE] == "registry/minisgl-runtime:2"


def test_an_image_edited_by_hand_is_not_mistaken_for_the_one_in_use() -> None:
    live = deployment()
    live["spec"]["template"]["spec"]["containers"][0]["image"] = "evil:1"
    assert build_children(live=live)[Child.DEPLOYMENT]["metadata"]["annotations"][api.IMAGE] == SETTINGS.runtime_image


def test_a_cuda_rollout_needs_no_spare_gpu_and_a_cpu_rollout_never_dips() -> None:
    rolling = deployment(device={"type": "cuda"})["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 0, "maxUnavailable": 1}
    assert deployment()["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_gpus_are_as_many_as_ranks() -> None:
    cuda = {"type": "cuda", "resourceName": "example.com/gpu"}
    assert container(device=cuda)["resources"] == {"limits": {"example.com/gpu": 1}}
    assert container(device=cuda, runtime={"tensorParallelSize": 2})["resources"]["limits"] == {"example.com/gpu": 2}
    assert "resources" not in container(runtime={"tensorParallelSize": 2})


def test_several_ranks_get_shared_memory() -> None:
    assert "/dev/shm" not in {mount["mountPath"] for mount in container()["volumeMounts"]}
    assert "/dev/shm" in {mount["mountPath"] for mount in container(runtime={"tensorParallelSize": 2})["volumeMounts"]}


def test_large_numbers_keep_their_digits() -> None:
    assert "--num-pages=1000000" in container(runtime={"numPages": 1000000})["args"]


def test_the_name_of_the_model_is_what_clients_ask_for_by_default() -> None:
    assert "--served-model-name=smollm2" in container()["args"]
    model = {"source": "pvc://models/x", "servedName": "other"}
    assert "--served-model-name=other" in container(model=model)["args"]


def test_what_the_operator_decides_cannot_be_overridden() -> None:
    args = container(runtime={"host": "127.0.0.1", "port": 1, "modelPath": "/etc"})["args"]
    assert {"--host=0.0.0.0", "--port=1919", "--model-path=/models/smollm2"} <= set(args)


@given(
    drain=st.fixed_dictionaries(
        {}, optional={"drainDelaySeconds": st.integers(0, 3600), "drainTimeoutSeconds": st.integers(0, 86400)}
    )
)
def test_the_grace_period_outlasts_every_drain_that_the_runtime_allows_itself(drain: dict[str, int]) -> None:
    args = parse_args(container(runtime=drain)["args"])
    assert args.drain_delay_seconds == drain.get("drainDelaySeconds", 5)
    assert args.drain_timeout_seconds == drain.get("drainTimeoutSeconds", 30)
    longest = args.drain_delay_seconds + args.drain_timeout_seconds + HARD_END_SECONDS
    assert pod_spec(runtime=drain)["terminationGracePeriodSeconds"] >= longest + 2  # the last of it is for the ends


def test_a_value_the_runtime_refuses_is_a_spec_error_with_its_sentence() -> None:
    with pytest.raises(SpecError, match=r"spec\.runtime: --num-pages and --num-tokens limit the same cache"):
        deployment(runtime={"numPages": 10, "numTokens": 10})
    with pytest.raises(SpecError, match=r"pageSiz.*did you mean 'pageSize'"):
        deployment(runtime={"pageSiz": 10})


FIELDS: list[dict[str, Any]] = [
    {"model": {"source": "hf://a/b"}},
    {"model": a_spec()["model"] | {"servedName": "x"}},
    {"model": a_spec()["model"] | {"tokenSecret": {"name": "s", "key": "k"}}},
    {"cache": {"claim": "c"}},
    {"cache": {"jitClaim": "c"}},
    {"cache": {"sizeLimit": "1Gi"}},
    {"device": {"type": "cuda"}},
    {"runtime": {"dtype": "float32"}},
    {"replicas": 3},
    {"image": "x"},
    {"imagePullPolicy": "Always"},
    {"resources": {"requests": {"cpu": 1}}},
    {"resources": {"limits": {"memory": "1Gi"}}},
    {"podTemplate": {"metadata": {"labels": {"a": "b"}}}},
    {"podTemplate": {"metadata": {"annotations": {"a": "b"}}}},
    {"podTemplate": {"spec": {"nodeSelector": {"a": "b"}}}},
    {"podTemplate": {"spec": {"tolerations": [{"operator": "Exists"}]}}},
    {"podTemplate": {"spec": {"runtimeClassName": "nvidia"}}},
    {"podTemplate": {"spec": {"priorityClassName": "high"}}},
    {"podTemplate": {"spec": {"imagePullSecrets": [{"name": "x"}]}}},
]


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_every_field_has_an_effect(fields: dict[str, Any]) -> None:
    assert deployment(**fields)["spec"] != deployment()["spec"]
