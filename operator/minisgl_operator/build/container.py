"""The container of a pod: image, arguments, probes, resources, and what it may not do."""

from __future__ import annotations

from typing import Any

from minisgl.args import LaunchArgs
from minisgl_operator.api import Spec
from minisgl_operator.build.launch import PORT
from minisgl_operator.objects import Object
from minisgl_operator.settings import Settings

CONTAINER = "minisgl"

# The runtime itself gives up a start in which nothing advances (runtime.startStallSeconds), and says where. The
# kubelet's clock cannot tell slow from stuck: it only ends what is beyond any load (4 TB at 50 MB/s are 22 hours).
START_BUDGET_SECONDS = 24 * 3600
START_PERIOD_SECONDS = 2  # Ready is seen this soon


def build_container(
    spec: Spec,
    settings: Settings,
    image: str,
    argv: list[str],
    args: LaunchArgs,
    env: list[Object],
    mounts: list[Object],
) -> Object:
    """The one container. `env` is that of source and cache, `mounts` are those of the volumes that the pod has."""
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": spec.image_pull_policy or settings.runtime_image_pull_policy,
        "args": argv,
        "env": [{"name": "HOME", "value": "/tmp"}, *env, *(each.as_written() for each in spec.pod_template.env)],  # noqa: S108
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        **_resources(spec, args.tensor_parallel_size),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "startupProbe": _probe("/readyz", START_PERIOD_SECONDS, START_BUDGET_SECONDS // START_PERIOD_SECONDS),
        "readinessProbe": _probe("/readyz", 2, 2),
        "livenessProbe": _probe("/livez", 10, 3),
        "volumeMounts": mounts,
    }


def _probe(path: str, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _resources(spec: Spec, num_gpus: int) -> Object:
    requests = dict(spec.resources.requests)
    limits = dict(spec.resources.limits)
    if spec.device.type == "cuda":
        limits[spec.device.resource_name] = num_gpus
        requests.pop(spec.device.resource_name, None)  # the API server makes it equal to the limit
    resources = {name: value for name, value in (("requests", requests), ("limits", limits)) if value}
    return {"resources": resources} if resources else {}
