"""The termination message: what a server that ends unwillingly leaves for whoever started it.

The runtime writes one JSON object to /dev/termination-log, where Kubernetes looks; the operator reads it back from
the pod's status and turns `reason` into a condition. Pure data, shared by both. Hints are written here and nowhere
else; they speak of the resource's fields, because only Kubernetes has a termination log.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

TERMINATION_LOG = Path("/dev/termination-log")
MOST_BYTES = 4096  # Kubernetes keeps the last of them: of a longer object, what cannot be read


class Reason(StrEnum):
    """Why a server ended. The values are condition reasons in Kubernetes: stable, PascalCase.

    Each has what it means, and the next action of somebody who reads it. `is_permanent`: a restart cannot mend it; the
    spec, the model or the node has to change.
    """

    means: str
    hint: str
    is_permanent: bool

    def __new__(cls, value: str, means: str, hint: str, is_permanent: bool = False) -> Self:
        reason = str.__new__(cls, value)
        reason._value_, reason.means, reason.hint, reason.is_permanent = value, means, hint, is_permanent
        return reason

    INVALID_ARGUMENTS = "InvalidArguments", "The launch arguments cannot work.", "correct spec.runtime", True
    MODEL_NOT_FOUND = (
        "ModelNotFound",
        "Nothing is where the model should be.",
        "check spec.model.source and what lies there",
        True,
    )
    ACCESS_DENIED = (
        "AccessDenied",
        "The hub or the object store does not give the model to these credentials.",
        "check the Secret that spec.model.tokenSecret or spec.model.s3.credentialsSecret names, and what its owner may "
        "read",
        True,
    )
    STORAGE_FULL = (
        "StorageFull",
        "The volume has no room for the model's files.",
        "raise spec.cache.sizeLimit or the size of the claim in spec.cache",
        True,
    )
    MODEL_LOAD_FAILED = (
        "ModelLoadFailed",
        "A file of the model is missing, damaged or may not be read.",
        "mend the model's files, or name others in spec.model.source",
        True,
    )
    UNSUPPORTED_MODEL = (
        "UnsupportedModel",
        "The engine does not know this architecture or number format.",
        "choose a supported model or a newer image",
        True,
    )
    DEVICE_UNAVAILABLE = (
        "DeviceUnavailable",
        "The device that was asked for is not in the pod.",
        "check spec.device.type, podTemplate.spec.runtimeClassName and the node's driver",
        True,
    )
    DOES_NOT_FIT = (
        "DoesNotFit",
        "The model, as it is to be run, needs more memory than its device has; no weights were read.",
        "make one of the changes that the message names",
        True,
    )
    OUT_OF_MEMORY = (
        "OutOfMemory",
        "Too little memory of the host, of the device, or for the KV cache: the message says which.",
        "give more memory, or ask for less",
    )
    ADDRESS_IN_USE = (
        "AddressInUse",
        "Something else listens where the server should.",
        "check what else listens in the pod",
    )
    START_STALLED = (
        "StartStalled",
        "In a start, nothing advanced for runtime.startStallSeconds.",
        "see the stacks in kubectl logs --previous; raise runtime.startStallSeconds if it would have gone on",
    )
    CHILD_DIED = "ChildDied", "A process of the server ended without being told to.", "see kubectl logs --previous"
    START_FAILED = "StartFailed", "The server could not start, for another reason.", "see kubectl logs --previous"


class Memory(StrEnum):
    """Which memory was too small, where the reason is OutOfMemory; each with the next action that helps there."""

    label: str
    hint: str

    def __new__(cls, value: str, label: str, hint: str) -> Self:
        memory = str.__new__(cls, value)
        memory._value_, memory.label, memory.hint = value, label, hint
        return memory

    HOST = (
        "Host",
        "the container's memory",
        "raise resources.limits.memory, or lower runtime.numTokens or runtime.maxPrefillLength",
    )
    DEVICE = (
        "Device",
        "the device's memory",
        "raise runtime.tensorParallelSize, use larger devices or a smaller runtime.dtype, or lower runtime.memoryRatio "
        "or runtime.maxPrefillLength",
    )
    CACHE = (
        "KVCache",
        "memory for the KV cache",
        "give more memory, raise runtime.memoryRatio, or lower runtime.maxPrefillLength or runtime.maxRunningRequests",
    )


class Termination(BaseModel):
    """One termination message. `process` is the child that failed, such as `scheduler-0`, and `rank` its number among
    the devices; `memory` says which one an OutOfMemory is about; `hint` is what to do next.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    reason: Reason
    message: str
    process: str | None = None
    rank: int | None = None
    memory: Memory | None = None
    hint: str = ""

    @property
    def next_action(self) -> str:
        """The hint that was left; else the one of the memory or of the reason."""
        return self.hint or (self.memory or self.reason).hint


def leave(termination: Termination, path: Path = TERMINATION_LOG) -> None:
    """Write the message where Kubernetes looks for it; without such a file there is nobody to tell."""
    if not path.exists():
        return
    message = termination.message.encode(errors="replace").decode()  # a file's name may be no text
    while len(text := _text(termination, message)) > MOST_BYTES:
        message = message[: len(message) * 3 // 4]  # the sentence matters more than its tail
    path.write_bytes(text)


def _text(termination: Termination, message: str) -> bytes:
    short = termination.model_copy(update={"message": message, "hint": termination.next_action})
    return short.model_dump_json(exclude_none=True).encode()


def read(text: str) -> Termination | None:
    """Parse a container's termination message; None when it is not ours (a crash before Python, an OOM kill)."""
    try:
        return Termination.model_validate_json(text)
    except ValidationError:
        return None
