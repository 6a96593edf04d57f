"""Does a child still look as we want it? Pure comparison of the wanted object with the stored one.

Only fields that we want are compared: what the API server defaults, other writers add (a sidecar's annotation,
`kubectl rollout restart`) or the status says is none of our business. Fields that we no longer want are caught by the
applied-hash, not here. The rules of a NetworkPolicy are compared whole: what is added to one opens it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from minisgl_operator import api
from minisgl_operator.api import Key
from minisgl_operator.errors import Leftover, NameTaken
from minisgl_operator.objects import Child, Children, Object, is_leaving

# Lists that the API server merges by key, as server-side apply does; all other lists are compared item by item.
MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "ownerReferences": "uid",
}
MAPS = {"matchLabels", "nodeSelector", "labels", "annotations"}  # here {} and nothing are the same
SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10) ** 3,
    **{unit: Decimal(10) ** (3 * power) for power, unit in enumerate("MGTPE", start=2)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}


@dataclass(frozen=True)
class Work:
    """What makes the stored children those of the plan."""

    apply: dict[Child, Object]
    delete: dict[Child, Object]


def compare(model: Object, plan: Mapping[Child, Object], stored: Children) -> Work:
    """Which children to apply, and which optional ones of this very model the spec no longer asks for."""
    apply = {
        child: wanted
        for child, wanted in plan.items()
        if child in stored and ((body := stored[child]) is None or differs(wanted, body))
    }
    delete = {
        child: body
        for child, body in stored.items()
        if child.optional and child not in plan and body is not None and _belongs_to(model, body)
    }
    return Work(apply, delete)


def differs(wanted: Object, stored: Object) -> bool:
    """Whether `wanted` has to be applied again."""
    return not _holds(wanted, stored, "")


def _holds(wanted: Any, stored: Any, field: str) -> bool:
    if isinstance(wanted, dict) and isinstance(stored, dict):
        if field in ("requests", "limits"):
            return all(name in stored and _quantity(size) == _quantity(stored[name]) for name, size in wanted.items())
        return all(
            _holds(value, stored[name], name) if name in stored else _is_dropped(value, name)
            for name, value in wanted.items()
        )
    if field == "sizeLimit":
        return _quantity(wanted) == _quantity(stored)
    if field in ("ingress", "egress"):
        return _holds(wanted, stored, "") and _holds(stored, wanted, "")
    if isinstance(wanted, list) and isinstance(stored, list) and field in MERGE_KEYS:
        key = MERGE_KEYS[field]
        by_key = {item.get(key): item for item in stored}
        return all(item[key] in by_key and _holds(item, by_key[item[key]], "") for item in wanted)
    if isinstance(wanted, list) and isinstance(stored, list) and field == "ports":
        # Merged by number and protocol; we have one port, and the API server adds fields to it.
        return all(any(_holds(port, other, "") for other in stored) for port in wanted)
    if isinstance(wanted, list) and isinstance(stored, list):
        # No key to find an item by: the same items in the same order, each of which the API server may have completed.
        return len(wanted) == len(stored) and all(_holds(*pair, "") for pair in zip(wanted, stored, strict=True))
    return bool(wanted == stored)


def _is_dropped(value: Any, field: str) -> bool:
    """Whether the API server stores this value as nothing; an empty object that says something (emptyDir) it keeps."""
    return value in ("", []) or (value == {} and field in MAPS)


def _quantity(text: int | str) -> Decimal:
    """`500m` -> 0.5. The API server stores quantities in its own spelling (0.5 becomes 500m)."""
    number = str(text)
    unit = number.lstrip("+-.0123456789")
    if unit[:1] in ("e", "E") and unit[1:]:
        return Decimal(number)
    return Decimal(number.removesuffix(unit)) * SUFFIXES[unit]


def check_owners(key: Key, model: Object, stored: Children) -> None:
    """Raises NameTaken for a child that is somebody else's, Leftover for one of a deleted model of the same name.

    An object without any controller that we once applied is ours: somebody removed its owner reference.
    """
    for child, body in stored.items():
        if body is None:
            continue
        owners = body["metadata"].get("ownerReferences", [])
        owner = next((each for each in owners if each.get("controller")), None)
        if owner is None and _applied_by_us(body):
            continue
        if owner is None or (owner["kind"], owner["name"]) != (api.KIND, key.name):
            holder = "nobody" if owner is None else f"{owner['kind']} {owner['name']}"
            text = f"{child.kind} {key.name} exists and belongs to {holder}"
            raise NameTaken(child, text)
        if owner["uid"] != model["metadata"]["uid"]:
            raise Leftover(f"{child.kind} {key.name} of a deleted model with this name is still going away")


def _belongs_to(model: Object, body: Object) -> bool:
    owners = body["metadata"].get("ownerReferences", [])
    return not is_leaving(body) and any(
        each.get("controller") and each["uid"] == model["metadata"]["uid"] for each in owners
    )


def _applied_by_us(body: Object) -> bool:
    return any(
        entry.get("manager") == api.FIELD_MANAGER and entry.get("operation") == "Apply"
        for entry in body["metadata"].get("managedFields", [])
    )
