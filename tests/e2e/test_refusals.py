"""What cannot work is refused: by the API server if the spec shows it, else by a condition that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from charts.tools import ROOT
from e2e import environment, kube
from e2e.environment import CHARTS, MODELS, SYSTEM, Environment
from e2e.specs import wanted


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"runtime": {"tensorParallelSize": 0}}, "spec.runtime.tensorParallelSize"),
        ({"runtime": {"tensorParallelSize": -1}}, "spec.runtime.tensorParallelSize"),
        ({"runtime": {"tensorParallelSize": "two"}}, "spec.runtime.tensorParallelSize"),
        ({"runtime": {"dtype": "float8"}}, "spec.runtime.dtype"),
        ({"runtime": {"attentionBackend": "magic"}}, "spec.runtime.attentionBackend"),
        ({"runtime": {"numPages": 8, "numTokens": 64}}, "numPages and numTokens limit the same cache"),
        ({"runtime": {"maxRunningRequest": 8}}, "spec.runtime.maxRunningRequest"),
        ({"modle": {}}, "spec.modle"),
        ({"model": {"source": "/models/x"}}, "spec.model.source"),
        ({"model": {"source": "pvc://models/../other"}}, "spec.model.source"),
        ({"device": {"type": "tpu"}}, "spec.device.type"),
        ({"replicas": -1}, "spec.replicas"),
        ({"podTemplate": {"spec": {"hostNetwork": True}}}, "spec.podTemplate.spec.hostNetwork"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_spec_is_refused_at_apply_and_the_field_is_named(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(kube.KubectlError, match=field.replace(".", r"\.")):
        kube.apply(wanted("refused", **spec))
    assert not kube.exists("msgl", "refused")


@pytest.mark.parametrize(("folder", "namespace"), [("manifests", SYSTEM), ("manifests/samples", MODELS)])
def test_what_we_ship_as_plain_yaml_is_accepted(folder: str, namespace: str) -> None:
    flags = ("--dry-run=server", "--validate=strict", "--namespace", namespace)
    assert "(server dry run)" in kube.kubectl("apply", *flags, "--filename", str(ROOT / folder))


def test_a_name_that_no_service_can_have_is_refused_at_apply() -> None:
    for name in ("9lives", "a" * 60):
        with pytest.raises(kube.KubectlError, match=r"metadata\.name"):
            kube.apply(wanted(name))


def test_three_ranks_for_eight_heads_stall_with_the_sizes_that_work(model: Callable[..., str], tiny: str) -> None:
    name = model("three-ranks", tiny, runtime={"dummyWeight": True, "tensorParallelSize": 3, "numTokens": 1024})
    message = kube.wait_until(name, "Stalled", within=90)["message"]
    assert "3" in message
    assert "1, 2, 4, 8" in message


def test_helm_fails_at_once_with_our_message_when_a_model_cannot_start(env: Environment) -> None:
    flags = ["--set=model.source=pvc://models/no-such-folder", f"--set=image={env.runtime_image}"]
    if env.runtime_class:
        flags.append(f"--set=podTemplate.spec.runtimeClassName={env.runtime_class}")
    where = ("--namespace", MODELS, "--wait", "--timeout=5m")
    try:
        with pytest.raises(environment.HelmError, match="no-such-folder"):
            environment.helm("install", "stalled", str(CHARTS / "minisgl-model"), *where, *flags, timeout=90)
    finally:
        environment.helm("uninstall", "stalled", "--namespace", MODELS, "--ignore-not-found", "--wait")


def test_an_image_that_is_not_there_is_named_and_mended_by_a_new_spec(model: Callable[..., str], tiny: str) -> None:
    image = "docker.io/local/no-such-image:1"
    runtime = {"dummyWeight": True, "numTokens": 1024}
    name = model("no-image", tiny, image=image, imagePullPolicy="Never", runtime=runtime)
    found = kube.wait_until(name, "Stalled", within=60)
    assert found["reason"] == "ImagePullFailed"
    assert image in found["message"]
    kube.apply(wanted(name, tiny, runtime=runtime))
    kube.wait_until(name, within=120)
