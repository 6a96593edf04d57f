"""How deep in brackets a growing text is, so that the end of an object or a call is found without parsing it."""

from __future__ import annotations

import re

# What stands outside of strings in JSON, beside brackets.
JSON_CHARS = frozenset(" \t\r\n,:+-.0123456789eEtrufalsn")


class Brackets:
    """Reads on from piece to piece. It ends with the outermost bracket (`is_closed`), or where it breaks (`is_broken`).

    `allowed`: what may stand outside of strings and brackets; None: everything but "<", which begins a mark.
    """

    def __init__(self, quotes: str = '"', allowed: frozenset[str] | None = None, depth: int = 0) -> None:
        self._quotes, self._allowed, self._depth = quotes, allowed, depth
        self._quote = ""  # of the string that is open
        self._is_escaped = False
        self.is_closed = self.is_broken = False

    def read(self, text: str, at: int = 0) -> int:
        """Read `text` from `at`; returns where it stopped: behind the last bracket, or before what broke it."""
        while at < len(text):
            if self._quote:
                at = self._read_string(text, at)
                continue
            char = text[at]
            if char in self._quotes:
                self._quote = char
            elif char in "{[(":
                self._depth += 1
            elif char in "}])":
                self._depth -= 1
                if self._depth <= 0:
                    self.is_closed = True
                    return at + 1
            elif char == "<" if self._allowed is None else char not in self._allowed:
                self.is_broken = True
                return at
            at += 1
        return at

    def _read_string(self, text: str, at: int) -> int:
        if self._is_escaped:
            self._is_escaped = False
            return at + 1
        found = _STOPS[self._quote].search(text, at)
        if found is None:
            return len(text)
        if found[0] == "\\":
            self._is_escaped = True
        else:
            self._quote = ""
        return found.end()


_STOPS = {quote: re.compile(rf"[\\{quote}]") for quote in "\"'"}
