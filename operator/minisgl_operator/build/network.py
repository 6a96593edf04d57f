"""The Service in front of the pods, and the empty identity that they run as."""

from __future__ import annotations

from minisgl_operator import api
from minisgl_operator.api import Key
from minisgl_operator.build.meta import build_metadata
from minisgl_operator.objects import Object


def build_service(key: Key, uid: str) -> Object:
    """Port 80 of `<name>.<namespace>.svc` leads to the ready pods."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": build_metadata(key, uid),
        "spec": {
            "type": "ClusterIP",
            "selector": api.selector(key.name),
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}],
        },
    }


def build_service_account(key: Key, uid: str) -> Object:
    """An identity without rights and without a mounted token: model pods never talk to the API server."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": build_metadata(key, uid),
        "automountServiceAccountToken": False,
    }
