"""Knows our own writes again when the watches tell of them: an event that brings back what a reply has said is no news.

    PATCH ──► reply: version 7        a watch: MODIFIED, version 7 ──► an echo, nobody looks
                                      a watch: MODIFIED, version 8 ──► somebody else's, the model is looked at

Creating a model is a dozen writes; without this each of them would be one more reconcile. Kept in memory only: what is
forgotten is looked at once more. Written by the operator's loop, read by kopf's thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minisgl_operator.objects import Object

NUM_KEPT = 4096  # an event follows its reply within a second or so


class Echoes:
    """The newest objects that replies to our writes held, each by uid and version."""

    def __init__(self, num_kept: int = NUM_KEPT) -> None:
        self._num_kept = num_kept
        self._written: dict[tuple[str, str], None] = {}

    def wrote(self, stored: Object) -> None:
        """A reply to a write."""
        self._written[_identity(stored.get("metadata", {}))] = None
        if len(self._written) > self._num_kept:
            self._written.pop(next(iter(self._written)))

    def is_echo(self, event_type: str | None, metadata: Mapping[str, Any]) -> bool:
        """Whether an event tells nothing that a reply did not. Of what has been listed or deleted it always does."""
        return event_type in ("ADDED", "MODIFIED") and _identity(metadata) in self._written


def _identity(metadata: Mapping[str, Any]) -> tuple[str, str]:
    return metadata.get("uid", ""), metadata.get("resourceVersion", "")
