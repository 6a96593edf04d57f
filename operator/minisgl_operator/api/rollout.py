"""`spec.rollout`: how pods of an older spec are replaced by pods of the newest."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from minisgl_operator.api.part import Part
from minisgl_operator.api.scalar import IntOrPercent


class Rollout(Part):
    """How many pods more or less there may be meanwhile, and how long it may stand still."""

    max_surge: IntOrPercent | None = Field(
        default=None,
        description="Pods beyond replicas during a rollout, as a number or a percentage of replicas. "
        "Unset: 1 on a CPU; 0 on GPUs, where a pod more would wait for a GPU that only an old pod can free.",
    )
    max_unavailable: IntOrPercent | None = Field(
        default=None,
        description="Pods that may be missing during a rollout, as a number or a percentage of replicas. "
        "Unset: 0 on a CPU; 1 on GPUs.",
    )
    progress_deadline_seconds: Annotated[int, Field(ge=1, le=604800)] | None = Field(
        default=None,
        description="Seconds without progress after which a rollout is called stuck; the old pods serve on. "
        "Unset: 3900, which is longer than the slowest start.",
    )

    def limits(self, device: str) -> tuple[int | str, int | str]:
        """(maxSurge, maxUnavailable) with the defaults of `device`."""
        surge, unavailable = (0, 1) if device == "cuda" else (1, 0)
        return (
            surge if self.max_surge is None else self.max_surge,
            unavailable if self.max_unavailable is None else self.max_unavailable,
        )
