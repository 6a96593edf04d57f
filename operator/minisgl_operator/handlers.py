"""What the operator listens to: its table of contents. Every event only says which model to look at; an object that
was listed, at the start or after a break, says to look at all (`resync`).

`on.event` leaves no finalizer and no annotation on any object, so nothing hangs when the operator is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import kopf

from minisgl_operator import api
from minisgl_operator.api import Key
from minisgl_operator.resync import Resync

REGISTRY = kopf.OperatorRegistry()
# Beside the models: what they own, narrowed to our label by the API server (see `watch`).
PODS = ("", "v1", "pods")
CHILDREN = (
    ("apps", "v1", "deployments"),
    ("batch", "v1", "jobs"),
    ("", "v1", "services"),
    ("", "v1", "serviceaccounts"),
    ("networking.k8s.io", "v1", "networkpolicies"),
    PODS,
)


@kopf.on.event(api.GROUP, api.VERSION, api.PLURAL, registry=REGISTRY)
async def model_changed(
    namespace: str | None, name: str, meta: Mapping[str, Any], event: Mapping[str, Any], memo: Any, **_: Any
) -> None:
    """A model was created, changed or deleted, or has been listed."""
    if event["type"] is None:
        memo.listed()
    elif not memo.is_echo(event["type"], meta):
        memo.offer(Key(namespace or "", name), urgent=True)


async def child_changed(
    namespace: str | None,
    labels: Mapping[str, str],
    meta: Mapping[str, Any],
    event: Mapping[str, Any],
    memo: Any,
    **_: Any,
) -> None:
    """A child, or the pod of an inspection, was created, changed or deleted; its label names the model."""
    if event["type"] is None:
        memo.listed()
    elif memo.is_echo(event["type"], meta):
        return
    elif model := labels.get(api.MODEL_LABEL) or labels.get(api.INSPECTS_LABEL):
        memo.offer(Key(namespace or "", model))


for group, version, plural in CHILDREN:
    kopf.on.event(group, version, plural, registry=REGISTRY)(child_changed)


@kopf.on.login(registry=REGISTRY)
async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """Kopf's own small logins: the service account in a pod, else KUBECONFIG."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


@kopf.on.probe(registry=REGISTRY, id="resync_age_seconds")
async def resync_age(memo: Any, **_: Any) -> float:
    """Liveness: fail when the models could not be listed for two resync periods."""
    resync: Resync = memo.resync
    if resync.is_stale():
        raise kopf.PermanentError(f"models were last listed {resync.age():.0f} seconds ago")
    return round(resync.age(), 1)
