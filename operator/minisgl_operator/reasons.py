"""The reasons that conditions and events carry. They are API: alerts and people match on them.

A `Finding` is one reason with its sentence, and whether waiting can help.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Each with what it means; reasons of the runtime itself stand in `minisgl.termination.Reason`."""

    # Ready is True.
    SERVING = "Serving"
    """Every wanted replica of the newest spec answers."""
    SCALED_TO_ZERO = "ScaledToZero"
    """spec.replicas is 0 and no pod is left: what was asked for is there, and nothing serves."""

    # Reconciling is True: waiting may help.
    STARTING = "Starting"
    """Pods are being created, or load the model."""
    ROLLING_OUT = "RollingOut"
    """Pods of an older spec are being replaced."""
    SCALING = "Scaling"
    """Pods are being added or removed; the spec of the pods is unchanged."""
    NOT_READY = "NotReady"
    """A replica that served does not answer its readiness probe."""
    IMAGE_PULL_FAILED = "ImagePullFailed"
    """The image cannot be pulled (yet)."""
    UNSCHEDULABLE = "Unschedulable"
    """No node takes the pod; the message is the scheduler's."""
    INSUFFICIENT_GPU = "InsufficientGPU"
    """No node has enough free GPUs for a pod."""
    REFERENCE_NOT_FOUND = "ReferenceNotFound"
    """A PersistentVolumeClaim, Secret or key that the spec names does not exist."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    """The namespace's ResourceQuota leaves no room for a pod."""
    POD_EVICTED = "PodEvicted"
    """A node ended the pod (eviction, lost node, device gone); a new one is made."""
    CRASH_LOOP = "CrashLoop"
    """The server ends again and again; Stalled from the third time on."""
    REPLACING = "Replacing"
    """Children of a deleted model with the same name are still going away."""
    FORBIDDEN = "Forbidden"
    """The operator lacks a right; the message names verb and resource."""

    # Stalled is True: something has to be changed.
    INVALID_SPEC = "InvalidSpec"
    """The spec cannot become pods. Pods of the last good spec are left alone."""
    NAME_CONFLICT = "NameConflict"
    """An object with a child's name exists and belongs to somebody else. It is left alone."""
    POD_REJECTED = "PodRejected"
    """The API server refuses the pods (admission, LimitRange, pod security)."""
    OUT_OF_MEMORY = "OutOfMemory"
    """The kernel ended the server for its memory limit, or the device's memory is too small."""
    START_STALLED = "StartStalled"
    """No progress within the Deployment's progress deadline."""


@dataclass(frozen=True)
class Finding:
    """One judgement: a reason, what is seen with the next action, and whether only a change can help."""

    reason: str
    message: str
    stalled: bool = False
