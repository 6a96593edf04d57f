"""Stop strings over a growing text: nothing of a stop string leaks, nothing else is lost or late.

The stop that is complete first wins; of those complete at the same character, the longest. So the result does not
depend on how the text was cut into pieces.
"""

from __future__ import annotations


class StopScanner:
    """Feed pieces, get the text that is safe to show. After `stopped_by` is set, nothing more comes."""

    def __init__(self, stops: tuple[str, ...], include_stop: bool = False) -> None:
        self._stops = stops
        self._include = include_stop
        self._held = ""  # a proper prefix of some stop string
        self.stopped_by: str | None = None

    def feed(self, piece: str) -> str:
        if not self._stops:
            return piece
        text = self._held + piece
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            end, start, self.stopped_by = min(found)
            self._held = ""
            return text[: end if self._include else start]
        keep = self._prefix_len(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """The held text, at the end of the answer."""
        held, self._held = self._held, ""
        return held

    def _prefix_len(self, text: str) -> int:
        """Length of the longest end of `text` that begins some stop string."""
        longest = max(map(len, self._stops)) - 1
        for size in range(min(longest, len(text)), 0, -1):
            tail = text[-size:]
            if any(len(stop) > size and stop.startswith(tail) for stop in self._stops):
                return size
        return 0
