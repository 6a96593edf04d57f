"""The three conditions of a model: pure, from one finding. `lastTransitionTime` moves only when a status flips."""

from __future__ import annotations

from typing import Literal

from minisgl_operator.api import Condition
from minisgl_operator.objects import Object, condition
from minisgl_operator.reasons import Finding


def conditions(finding: Finding, ready: bool, generation: int, previous: Object, now: str) -> list[Condition]:
    """Ready, Reconciling and Stalled; exactly one is True, and all carry the finding."""
    truths: list[tuple[Literal["Ready", "Reconciling", "Stalled"], bool]] = [
        ("Ready", ready),
        ("Reconciling", not ready and not finding.stalled),
        ("Stalled", not ready and finding.stalled),
    ]
    result = []
    for kind, truth in truths:
        old = condition({"status": previous}, kind)
        status: Literal["True", "False"] = "True" if truth else "False"
        since = old["lastTransitionTime"] if old is not None and old["status"] == status else now
        result.append(
            Condition(
                type=kind,
                status=status,
                reason=str(finding.reason),
                message=finding.message,
                last_transition_time=since,
                observed_generation=generation,
            )
        )
    return result
