"""What inspections have told within the last minute, by namespace and revision: models that are made together from one
source share one Job.

Not longer, as a folder may hold another model by then, and not across namespaces, as a claim or a Secret of one name is
not the same in two.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from minisgl_operator.objects import Object

KEPT_SECONDS = 60.0


class Answers:
    """In memory only: what is forgotten is asked for again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[tuple[str, str], tuple[float, Object]] = {}  # oldest first

    def keep(self, namespace: str, known: Object) -> None:
        """Keep an answer; `known` is what `status.plan` remembers of it."""
        identity = (namespace, known["revision"])
        self._told.pop(identity, None)
        self._told[identity] = (self._clock(), known)

    def find(self, namespace: str, revision: str) -> Object | None:
        """The answer for a revision, or None."""
        oldest = self._clock() - KEPT_SECONDS
        while self._told and next(iter(self._told.values()))[0] < oldest:
            self._told.pop(next(iter(self._told)))
        found = self._told.get((namespace, revision))
        return found[1] if found else None
