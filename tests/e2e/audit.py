"""The API server's audit log: what the operator really did."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from e2e.environment import ACCOUNT

WRITES = {"create", "update", "patch", "delete", "deletecollection"}
Right = tuple[str, str, str]  # API group, resource with subresource, verb


def end(log: Path) -> int:
    """Where the log ends now, to read on from later."""
    return log.stat().st_size


def calls(log: Path, since: int = 0) -> Iterator[dict[str, Any]]:
    """The operator's calls that concern objects."""
    with log.open("rb") as lines:
        lines.seek(since)
        for line in lines:
            if not line.endswith(b"\n"):
                return  # still being written
            call = json.loads(line)
            if call["user"]["username"] == ACCOUNT and "objectRef" in call:
                yield call


def writes(log: Path, since: int) -> list[str]:
    """What the operator wrote, as `verb resource/name`; that it renewed its Lease is left out."""
    return [
        f"{call['verb']} {call['objectRef']['resource']}/{call['objectRef'].get('name', '')}"
        for call in calls(log, since)
        if call["verb"] in WRITES and call["objectRef"]["resource"] != "leases"
    ]


def used(log: Path) -> set[Right]:
    """The rights that were needed. A patch that answers 201 made the object, which needs the right to create."""
    rights = set()
    for call in calls(log):
        about = call["objectRef"]
        resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
        rights.add((about.get("apiGroup", ""), resource, call["verb"]))
        if call["verb"] == "patch" and call.get("responseStatus", {}).get("code") == 201:
            rights.add((about.get("apiGroup", ""), resource, "create"))
    return rights


def refused(log: Path) -> list[str]:
    """Calls that the API server forbade for want of a right. A namespace that goes away refuses everybody's."""
    return [
        f"{call['verb']} {call['requestURI']}"
        for call in calls(log)
        if (status := call.get("responseStatus", {})).get("code") in (401, 403)
        and "because it is being terminated" not in status.get("message", "")
    ]


def granted(rules: Iterable[dict[str, list[str]]]) -> set[Right]:
    """RBAC rules as single rights."""
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
