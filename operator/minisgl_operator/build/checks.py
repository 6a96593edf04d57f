"""What the API server's CEL rules refuse, said again: a stored spec may be older than the rules.

Only for rules that no child's own schema holds; what Kubernetes refuses in a child is told in its own words.
"""

from __future__ import annotations

from collections.abc import Sequence

from minisgl_operator import api
from minisgl_operator.api import Spec
from minisgl_operator.api.extra_args import find_conflict
from minisgl_operator.errors import SpecError
from minisgl_operator.objects import Object

ZERO = (0, "0", "0%")


def check(spec: Spec, env: Sequence[Object], ranks: int) -> None:
    """Raises SpecError for the first rule that is broken. `env` is what the operator sets itself."""
    if conflict := find_conflict(spec.extra_args):
        raise SpecError(conflict)
    surge, unavailable = spec.rollout.limits(spec.device.type)
    if surge in ZERO and unavailable in ZERO:
        raise SpecError(
            f"spec.rollout.maxSurge={surge} and maxUnavailable={unavailable}: no pod could ever be replaced; "
            "set one of them to 1"
        )
    wanted = ranks if spec.device.type == "cuda" else 0
    for part, sizes in (("requests", spec.resources.requests), ("limits", spec.resources.limits)):
        given = sizes.get(spec.device.resource_name, wanted)
        if str(given) != str(wanted):
            raise SpecError(
                f"spec.resources.{part}: {spec.device.resource_name}={given}, but device.type {spec.device.type} with "
                f"runtime.tensorParallelSize {ranks} takes {wanted}; leave it out, the operator adds it"
            )
    decided = {*api.DECIDED_ENV, *(each["name"] for each in env)}
    for variable in spec.pod_template.env:
        if variable.name in decided:
            raise SpecError(
                f"spec.podTemplate.spec.containers: env {variable.name} is decided by the operator; remove it"
            )
