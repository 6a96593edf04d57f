"""Metadata that all children share: name, labels, owner."""

from __future__ import annotations

from minisgl_operator import api
from minisgl_operator.api import Key
from minisgl_operator.objects import Object


def build_metadata(key: Key, uid: str) -> Object:
    """Name, namespace, labels and owner of a child.

    `blockOwnerDeletion` stays unset: it needs a right on finalizers, and we have none.
    """
    return {
        "name": key.name,
        "namespace": key.namespace,
        "labels": api.labels(key.name),
        "ownerReferences": [
            {
                "apiVersion": api.API_VERSION,
                "kind": api.KIND,
                "name": key.name,
                "uid": uid,
                "controller": True,
            }
        ],
    }
