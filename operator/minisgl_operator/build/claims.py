"""PersistentVolumeClaims that the pods share: can they, with so many replicas? Pure; the claims are read elsewhere.

ReadWriteOncePod  one pod in the cluster      a second pod never starts: refused before it is made
ReadWriteOnce     pods of one node            works where they fit on one node: said while they are not ready
ReadOnlyMany, ReadWriteMany                   any number of pods on any nodes
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from minisgl_operator.api import Spec
from minisgl_operator.build.source import claim_of
from minisgl_operator.errors import SpecError
from minisgl_operator.objects import Object

MANY, ONE_POD = {"ReadOnlyMany", "ReadWriteMany"}, "ReadWriteOncePod"


def claims_of(spec: Spec) -> dict[str, str]:
    """The claims that the pods mount: name -> the field that names it."""
    fields = {
        "spec.model.source": claim_of(spec.model),
        "spec.cache.claim": spec.cache.claim,
        "spec.cache.jitClaim": spec.cache.jit_claim,
    }
    return {name: field for field, name in fields.items() if name is not None}


def judge_claims(spec: Spec, deployment: Object, found: Mapping[str, Object]) -> str:
    """What to say about the claims while the pods are not ready; nothing where all is well.

    `deployment` is the wanted one, `found` holds the claims that exist. Raises SpecError for pods that could never run.
    """
    replicas = deployment["spec"]["replicas"]
    surge = _surge(deployment, replicas)
    num_pods = replicas + surge
    hints = []
    for name, field in claims_of(spec).items():
        modes = _modes(found.get(name, {}))
        if num_pods <= 1 or not modes or MANY & set(modes):
            continue
        count = f"{replicas} {'replica' if replicas == 1 else 'replicas'}"
        count += f" and {surge} more during a rollout" if surge else ""
        if ONE_POD in modes:
            raise SpecError(
                f"{field}: claim {name} is ReadWriteOncePod, so one pod alone may use it, but there would be {count}; "
                "use a claim of mode ReadWriteMany or ReadOnlyMany, or set replicas to 1, rollout.maxSurge to 0 and "
                "rollout.maxUnavailable to 1"
            )
        hints.append(
            f"claim {name} of {field} is ReadWriteOnce: {count} must all find room on one node, as a pod elsewhere "
            "waits for the volume for ever (with mode ReadWriteMany or ReadOnlyMany they may spread)"
        )
    return "; ".join(hints)


def are_taken(deployment: Object | None, found: Mapping[str, Object]) -> bool:
    """Whether a pod of the live Deployment has a claim that no other pod, and no inspection's, can mount beside it."""
    num_pods = (deployment or {}).get("status", {}).get("replicas", 0)
    return num_pods > 0 and any(ONE_POD in _modes(claim) for claim in found.values())


def _modes(claim: Object) -> list[str]:
    modes: list[str] = claim.get("spec", {}).get("accessModes", [])
    return modes


def _surge(deployment: Object, replicas: int) -> int:
    """Pods beyond `replicas` during a rollout; Kubernetes rounds a percentage up."""
    surge = deployment["spec"]["strategy"].get("rollingUpdate", {}).get("maxSurge", 0)
    return math.ceil(replicas * int(surge[:-1]) / 100) if isinstance(surge, str) and surge[-1] == "%" else int(surge)
