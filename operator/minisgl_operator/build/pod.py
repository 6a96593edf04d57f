"""The pod template: one container, which passes the pod security standard "restricted"."""

from __future__ import annotations

from minisgl_operator import api
from minisgl_operator.api import Key, Spec
from minisgl_operator.build.cache import build_cache
from minisgl_operator.build.check import build_check
from minisgl_operator.build.checks import check
from minisgl_operator.build.container import build_container
from minisgl_operator.build.launch import build_launch
from minisgl_operator.build.source import build_source
from minisgl_operator.objects import Object
from minisgl_operator.settings import Settings

USER = 10001
# After drain delay and drain time-out the runtime ends open requests itself and exits within 5 seconds.
GRACE_SECONDS = 10
# A fresh volume belongs to root. Once its top folder is the group's, the files below are left alone.
WRITABLE: Object = {"fsGroup": USER, "fsGroupChangePolicy": "OnRootMismatch"}


def build_pod(key: Key, spec: Spec, settings: Settings, image: str) -> Object:
    """The template of a model's pods. Raises SpecError."""
    source = build_source(spec.model)
    launch = build_launch(key, spec, source.model_path)
    cache = build_cache(spec.cache)
    check(spec, [*source.env, *cache.env], launch.args.tensor_parallel_size)
    pod = spec.pod_template
    volumes = [{"name": "tmp", "emptyDir": {}}, *cache.volumes, *source.volumes]
    mounts = [{"name": "tmp", "mountPath": "/tmp"}, *cache.mounts, *source.mounts]  # noqa: S108 (the pod's own)
    if launch.args.tensor_parallel_size > 1:
        # NCCL's rings lie in shared memory, and a container's /dev/shm has only 64 MB.
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108
    placement = {
        "nodeSelector": pod.spec.node_selector,
        "tolerations": [each.as_written() for each in pod.spec.tolerations],
        "affinity": pod.spec.affinity.as_written() if pod.spec.affinity else None,
        "topologySpreadConstraints": [
            # Unset, Kubernetes would count no pod at all.
            {"labelSelector": {"matchLabels": api.selector(key.name)}} | each.as_written()
            for each in pod.spec.topology_spread_constraints
        ],
        "runtimeClassName": pod.spec.runtime_class_name or settings.runtime_class_name,
        "priorityClassName": pod.spec.priority_class_name,
        "schedulerName": pod.spec.scheduler_name,
        "imagePullSecrets": [{"name": each.name} for each in pod.spec.image_pull_secrets],
    }
    args = launch.args
    server = build_container(spec, settings, image, launch.argv, args, [*cache.env, *source.env], mounts)
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
                **(WRITABLE if cache.has_claim else {}),
            },
            **build_check(spec, server),
            "containers": [server],
            "volumes": volumes,
            **{name: value for name, value in placement.items() if value},
        },
    }
