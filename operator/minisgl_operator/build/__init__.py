"""Pure builders: a spec becomes the objects that should exist, as dicts whose bytes depend on their input alone.

`children` is the door. Nothing here reads a cluster, a clock or the environment.
"""

from __future__ import annotations

from minisgl_operator.api import Key, Spec
from minisgl_operator.build.deployment import build_deployment
from minisgl_operator.build.hashing import seal
from minisgl_operator.build.monitor import build_pod_monitor
from minisgl_operator.build.network import build_service, build_service_account
from minisgl_operator.build.policy import build_network_policy
from minisgl_operator.objects import Child, Object
from minisgl_operator.settings import Settings

__all__ = ["children"]


def children(key: Key, uid: str, spec: Spec, settings: Settings, live: Object | None) -> dict[Child, Object]:
    """The children of a model in the order of creation. `live` is its Deployment now, whose image may be kept.

    The Deployment is what the API server may refuse; nothing behind it is written then, so a bad spec changes nothing.
    A policy made a moment after the Deployment still stands before its first pod runs.
    Raises SpecError if the spec cannot become pods.
    """
    wanted = {
        Child.SERVICE_ACCOUNT: build_service_account(key, uid),
        Child.SERVICE: build_service(key, uid),
        Child.DEPLOYMENT: build_deployment(key, uid, spec, settings, live),
    }
    if spec.network_policy.enabled:
        wanted[Child.NETWORK_POLICY] = build_network_policy(key, uid, spec, settings)
    if spec.monitoring.enabled:
        wanted[Child.POD_MONITOR] = build_pod_monitor(key, uid, spec)
    return {child: seal(body) for child, body in wanted.items()}
