"""What one request has been told of its own prompt: log-probabilities, growing chunk by chunk.

    prompt   a   b   c   d   e          input i scores the token at i + 1; the last input samples the first new token
    input    0   1   2   3   -
             known )[ to be scored )    what is known survives a preemption, and is not asked for again

A prefix that the cache holds is not computed, so nothing could be said of it: `findable` is how much may be found.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from minisgl.engine.batch import Batch, Scores
from minisgl.messages import PromptLogprobs


class PromptScores:
    """`num_top` likeliest tokens are told beside each of the prompt's own."""

    def __init__(self, prompt: NDArray[np.int32], num_top: int) -> None:
        self._prompt, self.num_top = prompt, num_top
        self._parts: list[Scores] = []
        self.num_known = 0

    @property
    def is_complete(self) -> bool:
        return self.num_known == len(self._prompt) - 1

    def findable(self, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """The part of `ids` whose prefix the cache may have; it never gives the last of them."""
        return ids if self.is_complete else ids[: self.num_known + 1]

    def wanted(self, start: int, end: int) -> range:
        """Which inputs of the chunk from `start` to `end` have to be scored."""
        return range(max(start, self.num_known), min(end, len(self._prompt) - 1))

    def add(self, part: Scores) -> None:
        """Scores of the inputs that follow those known; they may have more likely tokens than were asked for."""
        self._parts.append(
            part._replace(top_tokens=part.top_tokens[:, : self.num_top], top=part.top[:, : self.num_top])
        )
        self.num_known += len(part.logprobs)

    def message(self) -> PromptLogprobs | None:
        """All of them, as a message's bytes; None before they are complete."""
        if not self.is_complete:
            return None
        columns = [
            b"".join(np.ascontiguousarray(part).tobytes() for part in parts) for parts in zip(*self._parts, strict=True)
        ]
        return PromptLogprobs(self._prompt.tobytes(), *(columns or (b"",) * len(Scores._fields)))


def by_row(batch: Batch, scores: Scores) -> Iterator[tuple[int, Scores]]:
    """The scores of a step, row by row."""
    owners = np.searchsorted(np.cumsum(batch.counts), batch.scored, side="right")
    for at in np.unique(owners).tolist():
        yield int(batch.rows[at]), Scores(*(column[owners == at] for column in scores))
