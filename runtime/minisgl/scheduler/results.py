"""What a step brought, gathered as arrays until it is sent: one `Step` message, whatever the number of requests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from minisgl.messages import Finish, Logprobs, Opened, Stats, Step


class Results:
    """Rows of results since the last `take`."""

    def __init__(self) -> None:
        self._clear()

    def __bool__(self) -> bool:
        return bool(self._uids)

    def add(self, uids: ArrayLike, tokens: ArrayLike, finish: ArrayLike) -> None:
        """Add equal-length columns."""
        self._uids.append(np.asarray(uids, np.int64))
        self._tokens.append(np.asarray(tokens, np.int32))
        self._finish.append(np.asarray(finish, np.uint8))

    def end(self, uid: int, finish: Finish, error: str | None = None) -> None:
        """Add the terminal row of one request, without a token."""
        self.add([uid], [-1], [finish])
        if error is not None:
            self.errors[uid] = error

    def report(self, uid: int, logprobs: Logprobs) -> None:
        """Add what was asked about the token that `add` has just brought for this request."""
        self.logprobs[uid] = (*self.logprobs.get(uid, ()), logprobs)

    def take(self, stats: Stats | None) -> Step:
        """Everything so far as one message; starts anew."""
        step = Step(
            _bytes(self._uids),
            _bytes(self._tokens),
            _bytes(self._finish),
            tuple(self.opened),
            self.errors,
            stats,
            self.logprobs,
        )
        self._clear()
        return step

    def _clear(self) -> None:
        self._uids: list[np.ndarray] = []
        self._tokens: list[np.ndarray] = []
        self._finish: list[np.ndarray] = []
        self.opened: list[Opened] = []
        self.errors: dict[int, str] = {}
        self.logprobs: dict[int, tuple[Logprobs, ...]] = {}


def _bytes(parts: Sequence[np.ndarray]) -> bytes:
    return b"".join(part.tobytes() for part in parts)
