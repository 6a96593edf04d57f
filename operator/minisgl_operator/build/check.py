"""The init container that refuses at the latest: it plans with the GPUs that the pod was really given.

The operator judges only what the spec tells. Here the memory is read from the device, before a server starts that would
hold a GPU for the minutes in which it reads weights that cannot fit. Where nothing can be read, nothing is refused.
"""

from __future__ import annotations

from minisgl_operator.api import Spec
from minisgl_operator.objects import Object

CHECK = "check"
# Of the server's container: the GPUs too, since a container sees only its own. A pod's request is the larger of both.
KEPT = ("image", "imagePullPolicy", "env", "resources", "securityContext", "terminationMessagePolicy", "volumeMounts")


def build_check(spec: Spec, server: Object) -> Object:
    """`initContainers` of the pod, as a field of its spec; none on a CPU, where the server finds out as fast."""
    if spec.device.type != "cuda":
        return {}
    kept = {name: server[name] for name in KEPT if name in server}
    return {"initContainers": [{"name": CHECK, "args": ["plan", "--check", *server["args"]]} | kept]}
