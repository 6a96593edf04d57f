"""The reasons that conditions and events carry. They are API: alerts and people match on them.

A `Finding` is one reason with what is seen, what to do next, and whether waiting can help. The README's table is
generated from here and from `minisgl.termination`, whose reasons come from the servers themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from minisgl import termination

READY, WAITING, STUCK = "Ready", "Reconciling", "Stalled"
OFTEN = "Reconciling, then Stalled"  # from the third crash on; a server that ran 10 minutes was well


class Reason(StrEnum):
    """Each with the condition that is true, and what it means."""

    standing: str
    means: str

    def __new__(cls, value: str, standing: str, means: str) -> Self:
        reason = str.__new__(cls, value)
        reason._value_, reason.standing, reason.means = value, standing, means
        return reason

    SERVING = "Serving", READY, "Every wanted replica of the newest spec answers."
    SCALED_TO_ZERO = "ScaledToZero", READY, "`spec.replicas` is 0 and no pod is left: nothing serves, as asked."

    INSPECTING = "Inspecting", WAITING, "A short Job reads the model's config.json, to tell whether it fits."
    STARTING = "Starting", WAITING, "Pods are being created, or load the model; `status.pods` says how far each is."
    ROLLING_OUT = "RollingOut", WAITING, "Pods of an older spec are being replaced."
    SCALING = "Scaling", WAITING, "Pods are being added or removed; the spec of the pods is unchanged."
    NOT_READY = "NotReady", WAITING, "A replica that served does not answer its readiness probe."
    IMAGE_PULL_FAILED = (
        "ImagePullFailed",
        WAITING,
        "The image cannot be pulled (yet); Stalled if its name is none, or it may not be pulled.",
    )
    UNSCHEDULABLE = "Unschedulable", WAITING, "No node takes the pod; the message is the scheduler's."
    INSUFFICIENT_GPU = "InsufficientGPU", WAITING, "No node has as many free devices as a pod asks for."
    REFERENCE_NOT_FOUND = (
        "ReferenceNotFound",
        WAITING,
        "A PersistentVolumeClaim, Secret or key that the spec names does not exist.",
    )
    QUOTA_EXCEEDED = "QuotaExceeded", WAITING, "The namespace's ResourceQuota leaves no room for a pod or a child."
    POD_EVICTED = "PodEvicted", WAITING, "A node ended the pod (eviction, lost node, device gone); a new one is made."
    REPLACING = "Replacing", WAITING, "Children of a deleted model with the same name are still going away."
    FORBIDDEN = "Forbidden", WAITING, "The operator lacks a right, named in the message; tried again every 15 s."
    CRASH_LOOP = "CrashLoop", OFTEN, "The container ends without saying why; the message has its last line."

    INVALID_SPEC = "InvalidSpec", STUCK, "The spec cannot become pods; children of the last good one are left alone."
    PAUSED = "Paused", STUCK, "`spec.pause` is true and children differ from the spec; nothing is changed."
    NAME_CONFLICT = "NameConflict", STUCK, "A child's name is taken by somebody else's object, which is left alone."
    POD_REJECTED = (
        "PodRejected",
        STUCK,
        "The API server refuses the pods, or what makes them (LimitRange, pod security, a webhook); Reconciling while "
        "a webhook does not answer.",
    )
    ROLLOUT_STUCK = (
        "RolloutStuck",
        STUCK,
        "No pod of the newest spec got further within the progress deadline; pods of the previous one serve on.",
    )


@dataclass(frozen=True)
class Finding:
    """One judgement: a reason, what is seen, the next action, and whether only a change can help."""

    reason: str
    seen: str
    action: str = ""
    stalled: bool = False

    @property
    def message(self) -> str:
        """What a condition says: it ends with the next action."""
        return f"{self.seen}; {self.action}" if self.action else self.seen


def table() -> str:
    """The README's table, in Markdown."""
    rows = [(reason.value, reason.standing, reason.means) for reason in Reason]
    rows += [(each.value, STUCK if each.is_permanent else OFTEN, each.means) for each in termination.Reason]
    order = [READY, WAITING, OFTEN, STUCK]
    lines = ["| reason | true condition | means |", "| --- | --- | --- |"]
    for name, standing, means in sorted(rows, key=lambda row: order.index(row[1])):
        lines.append(f"| `{name}` | {standing} | {means} |")
    return "\n".join(lines) + "\n"
