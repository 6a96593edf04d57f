"""Pure builders: a spec becomes the objects that should exist, as dicts whose bytes depend on their input alone.

`children` is the door. Nothing here reads a cluster, a clock or the environment.
"""

from __future__ import annotations

from minisgl_operator.api import Key, Spec
from minisgl_operator.build.deployment import build_deployment
from minisgl_operator.build.hashing import seal
from minisgl_operator.build.network import build_service, build_service_account
from minisgl_operator.objects import Child, Object
from minisgl_operator.settings import Settings

__all__ = ["children"]


def children(key: Key, uid: str, spec: Spec, settings: Settings, live: Object | None) -> dict[Child, Object]:
    """The children of a model in the order of creation. `live` is its Deployment now, whose image may be kept.

    Raises SpecError if the spec cannot become pods.
    """
    return {
        Child.SERVICE_ACCOUNT: seal(build_service_account(key, uid)),
        Child.SERVICE: seal(build_service(key, uid)),
        Child.DEPLOYMENT: seal(build_deployment(key, uid, spec, settings, live)),
    }
