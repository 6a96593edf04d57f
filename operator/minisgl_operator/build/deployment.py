"""The Deployment: one container per replica, which passes the pod security standard "restricted".

A changed byte in the template restarts every model of every user, so this file changes with care: the golden files in
the tests are the contract between releases.
"""

from __future__ import annotations

from typing import Any

from minisgl.args import LaunchArgs
from minisgl_operator import api
from minisgl_operator.api import Key, Spec
from minisgl_operator.build.hashing import digest
from minisgl_operator.build.launch import PORT, build_launch
from minisgl_operator.build.meta import build_metadata
from minisgl_operator.build.source import Source, build_source
from minisgl_operator.objects import Object
from minisgl_operator.settings import Settings

CONTAINER = "minisgl"
USER = 10001

# A large model from a slow disk or from the hub: 140 GB at 50 MB/s is 47 minutes.
START_BUDGET_SECONDS = 3600
START_PERIOD_SECONDS = 2  # Ready is seen this soon
# Longer than the start budget, so that a slow start is not called stalled.
PROGRESS_DEADLINE_SECONDS = START_BUDGET_SECONDS + 300
# After drain delay and drain time-out the runtime ends open requests itself and exits within 5 seconds.
GRACE_SECONDS = 10


def build_deployment(key: Key, uid: str, spec: Spec, settings: Settings, live: Object | None) -> Object:
    """The wanted Deployment. `live` is the one in the cluster, if any. Raises SpecError."""
    spec_hash = digest(spec.model_dump(by_alias=True, exclude={"replicas"}, exclude_defaults=True))
    image = spec.image or _image_in_use(live, spec_hash) or settings.runtime_image
    template = _template(key, spec, settings, image)
    template_hash = digest(template)
    template["metadata"]["annotations"][api.TEMPLATE_HASH] = template_hash
    metadata = build_metadata(key, uid)
    metadata["annotations"] = {api.SPEC_HASH: spec_hash, api.TEMPLATE_HASH: template_hash, api.IMAGE: image}
    # GPUs are scarce: a surge pod would wait for one that only the old pod can free. A CPU rollout never dips.
    surge, unavailable = (0, 1) if spec.device.type == "cuda" else (1, 0)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": spec.replicas,
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": PROGRESS_DEADLINE_SECONDS,
            "selector": {"matchLabels": api.selector(key.name)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable},
            },
            "template": template,
        },
    }


def _image_in_use(live: Object | None, spec_hash: str) -> str | None:
    """The image that this same spec already runs on: a newer operator must not restart models nobody touched."""
    annotations = {} if live is None else live["metadata"].get("annotations", {})
    return annotations.get(api.IMAGE) if annotations.get(api.SPEC_HASH) == spec_hash else None


def _template(key: Key, spec: Spec, settings: Settings, image: str) -> Object:
    source = build_source(spec.model)
    launch = build_launch(key, spec, source.model_path)
    pod = spec.pod_template
    volumes = [{"name": "tmp", "emptyDir": {}}, source.volume]
    mounts = [{"name": "tmp", "mountPath": "/tmp"}, source.mount]  # noqa: S108 (the pod's own)
    if launch.args.tensor_parallel_size > 1:
        # NCCL's rings lie in shared memory, and a container's /dev/shm has only 64 MB.
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108
    placement = {
        "nodeSelector": pod.spec.node_selector,
        "tolerations": [each.model_dump(by_alias=True, exclude_none=True) for each in pod.spec.tolerations],
        "runtimeClassName": pod.spec.runtime_class_name or settings.runtime_class_name,
        "priorityClassName": pod.spec.priority_class_name,
        "imagePullSecrets": [{"name": each.name} for each in pod.spec.image_pull_secrets],
    }
    args = launch.args
    return {
        "metadata": {
            "labels": pod.metadata.labels | api.labels(key.name),
            "annotations": dict(pod.metadata.annotations),
        },
        "spec": {
            "serviceAccountName": key.name,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": args.drain_delay_seconds + args.drain_timeout_seconds + GRACE_SECONDS,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_container(spec, settings, image, launch.argv, args, source, mounts)],
            "volumes": volumes,
            **{name: value for name, value in placement.items() if value},
        },
    }


def _container(
    spec: Spec,
    settings: Settings,
    image: str,
    argv: list[str],
    args: LaunchArgs,
    source: Source,
    mounts: list[Object],
) -> Object:
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": spec.image_pull_policy or settings.runtime_image_pull_policy,
        "args": argv,
        "env": [{"name": "HOME", "value": "/tmp"}, *source.env],  # noqa: S108
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
