"""Hashes that tell "same" from "changed" without asking the API server.

applied-hash   on each child: all that we want of it. Differs -> apply, so that dropped fields are dropped.
spec-hash      on the Deployment: the user's fields that pods are made of. Same -> the image in use is kept.
template-hash  on Deployment and pods: the pod template. Tells pods of the newest template from older ones.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from minisgl_operator import api
from minisgl_operator.objects import Object


def digest(value: Any) -> str:
    """16 hex digits over canonical JSON; key order does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seal(body: Object) -> Object:
    """Add the applied-hash annotation to a finished child."""
    meta = body["metadata"]
    annotations = {**meta.get("annotations", {}), api.APPLIED_HASH: digest(body)}
    return {**body, "metadata": {**meta, "annotations": annotations}}
