"""An object store in the cluster, and claims to keep things in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from charts.tools import ROOT
from e2e import kube
from e2e.environment import MODELS, Environment

STORE, KEYS = "store", "store-keys"
SERVER = ROOT / "tests" / "support" / "s3_server.py"
S3: dict[str, Any] = {"endpoint": f"http://{STORE}.{MODELS}.svc:9000", "credentialsSecret": {"name": KEYS}}


@contextmanager
def object_store(env: Environment) -> Iterator[None]:
    """An S3 server while the block runs: a bucket for every folder in the claim `models`, behind one key."""
    meta = {"name": STORE, "namespace": MODELS, "labels": {"app": STORE}}
    keys = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "secret-of-the-reader"}
    port = {"port": 9000}
    objects = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {SERVER.name: SERVER.read_text()}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta | {"name": KEYS}, "stringData": keys},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": {"app": STORE}, "ports": [port]},
        },
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": _server(env)},
    ]
    try:
        for each in objects:
            kube.apply(each)
        kube.kubectl("wait", "--for=condition=Ready", f"pod/{STORE}", "--timeout=60s")
        yield
    finally:
        for each in objects:
            kube.kubectl("delete", str(each["kind"]), each["metadata"]["name"], "--ignore-not-found", "--now")


def _server(env: Environment) -> kube.Object:
    def key(variable: str, name: str) -> kube.Object:
        return {"name": variable, "valueFrom": {"secretKeyRef": {"name": KEYS, "key": name}}}

    return {
        "runtimeClassName": env.runtime_class,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "server",
                "image": env.runtime_image,
                "command": ["python3", f"/code/{SERVER.name}", "--root=/models"],
                "env": [key("S3_KEY_ID", "AWS_ACCESS_KEY_ID"), key("S3_SECRET", "AWS_SECRET_ACCESS_KEY")],
                "readinessProbe": {"tcpSocket": {"port": 9000}, "periodSeconds": 1},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [
                    {"name": "models", "mountPath": "/models", "readOnly": True},
                    {"name": "code", "mountPath": "/code"},
                ],
            }
        ],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
            {"name": "code", "configMap": {"name": STORE}},
        ],
    }


@contextmanager
def claim(name: str, *modes: str, folder: Path | None = None, namespace: str = MODELS) -> Iterator[str]:
    """A claim while the block runs, bound to a volume over `folder` of the node if there is one."""
    size = {"storage": "10Gi"}
    wanted = {"accessModes": modes, "storageClassName": "", "resources": {"requests": size}}
    bound = {
        "accessModes": modes,
        "capacity": size,
        "storageClassName": "",
        "claimRef": {"namespace": namespace, "name": name},
        "hostPath": {"path": str(folder), "type": "Directory"},
    }
    meta, volume = {"name": name, "namespace": namespace}, f"{namespace}-{name}"
    try:
        if folder is not None:
            kube.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume}, "spec": bound})
        asked = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": wanted}
        kube.kubectl("apply", "--namespace", namespace, "--filename", "-", given=json.dumps(asked))
        yield name
    finally:
        kube.kubectl("delete", "pvc", name, "--namespace", namespace, "--ignore-not-found", "--wait=false")
        kube.kubectl("delete", "pv", volume, "--ignore-not-found", "--wait=false")
