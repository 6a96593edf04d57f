"""Kubernetes objects as plain dicts: the kinds we make, and safe readers for fields that may be absent."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Any

Object = dict[str, Any]


class Child(Enum):
    """The kinds of children, with their API path prefix and plural. An optional one exists only if the spec asks."""

    DEPLOYMENT = ("Deployment", "/apis/apps/v1", "deployments")
    SERVICE = ("Service", "/api/v1", "services")
    SERVICE_ACCOUNT = ("ServiceAccount", "/api/v1", "serviceaccounts")
    NETWORK_POLICY = ("NetworkPolicy", "/apis/networking.k8s.io/v1", "networkpolicies", True)
    POD_MONITOR = ("PodMonitor", "/apis/monitoring.coreos.com/v1", "podmonitors", True)

    def __init__(self, kind: str, prefix: str, plural: str, optional: bool = False) -> None:
        self.kind = kind
        self.prefix = prefix
        self.plural = plural
        self.optional = optional


# A kind that the cluster does not know is left out; one that it knows without an object of that name is None.
Children = dict[Child, Object | None]


def read_annotations(obj: Object) -> dict[str, str]:
    """Annotations, or none."""
    found: dict[str, str] = obj["metadata"].get("annotations") or {}
    return found


def condition(obj: Object, kind: str) -> Object | None:
    """The status condition of that type, if there is one."""
    conditions: list[Object] = obj.get("status", {}).get("conditions") or []
    return next((each for each in conditions if each["type"] == kind), None)


def is_true(obj: Object, kind: str) -> bool:
    """Whether the condition of that type is there and True."""
    found = condition(obj, kind)
    return found is not None and found["status"] == "True"


def is_leaving(obj: Object) -> bool:
    """Whether deletion has begun."""
    return "deletionTimestamp" in obj["metadata"]


def seconds_between(start: str | None, end: str | None) -> int | None:
    """Whole seconds from one timestamp to another; None if one of them is missing."""
    if start is None or end is None:
        return None
    return int((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())
