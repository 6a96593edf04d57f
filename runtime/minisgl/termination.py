"""The termination message: what a server that ends unwillingly leaves for whoever started it.

The runtime writes one JSON object to /dev/termination-log, where Kubernetes looks; the operator reads it back from
the pod's status and turns `reason` into a condition. Pure data, shared by both.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

TERMINATION_LOG = Path("/dev/termination-log")


class Reason(StrEnum):
    """Why a server ended. The values are condition reasons in Kubernetes: stable, PascalCase."""

    INVALID_ARGUMENTS = "InvalidArguments"
    MODEL_NOT_FOUND = "ModelNotFound"
    ACCESS_DENIED = "AccessDenied"
    STORAGE_FULL = "StorageFull"
    MODEL_LOAD_FAILED = "ModelLoadFailed"
    UNSUPPORTED_MODEL = "UnsupportedModel"
    OUT_OF_MEMORY = "OutOfMemory"
    DEVICE_UNAVAILABLE = "DeviceUnavailable"
    ADDRESS_IN_USE = "AddressInUse"
    CHILD_DIED = "ChildDied"
    START_FAILED = "StartFailed"


# A restart cannot mend these: the spec, the model or the node has to change.
PERMANENT = frozenset(
    {
        Reason.INVALID_ARGUMENTS,
        Reason.MODEL_NOT_FOUND,
        Reason.ACCESS_DENIED,
        Reason.STORAGE_FULL,
        Reason.MODEL_LOAD_FAILED,
        Reason.UNSUPPORTED_MODEL,
        Reason.DEVICE_UNAVAILABLE,
    }
)


class Termination(BaseModel):
    """One termination message. `process` is the child that failed, such as `scheduler-0`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    reason: Reason
    message: str
    process: str | None = None


def leave(termination: Termination, path: Path = TERMINATION_LOG) -> None:
    """Write the message where Kubernetes looks for it; without such a file there is nobody to tell."""
    if path.exists():
        # Kubernetes keeps 4096 bytes; the sentence matters more than its tail.
        short = termination.model_copy(update={"message": termination.message[:3000]})
        path.write_text(short.model_dump_json(exclude_none=True))


def read(text: str) -> Termination | None:
    """Parse a container's termination message; None when it is not ours (a crash before Python, an OOM kill)."""
    try:
        return Termination.model_validate_json(text)
    except ValidationError:
        return None
