"""A bar over the requests of one call, with the tokens per second of the whole batch."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import NoReturn, Self

from tqdm.auto import tqdm

from minisgl.llm.output import Answers, Indices

EVERY_SECONDS = 0.2  # a bar is for eyes; a step takes milliseconds


class Bar:
    """Counts answers that have ended. Shown on a terminal and in a notebook, not in a log file."""

    def __init__(self, answers: Answers, num_requests: int, *, wanted: bool) -> None:
        is_seen = wanted and (sys.stderr.isatty() or "ipykernel" in sys.modules)
        self._answers = answers
        self._bar = tqdm(total=num_requests, unit=" answers", dynamic_ncols=True) if is_seen else None
        self._num_tokens = 0
        self._began = self._shown = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._show(self._bar, time.monotonic())
            self._bar.close()

    def hear(self, indices: Indices) -> None:
        """A step brought a token for each of these requests."""
        self._num_tokens += len(indices)
        now = time.monotonic()
        if self._bar is not None and now - self._shown >= EVERY_SECONDS:
            self._show(self._bar, now)

    def _show(self, bar: tqdm[NoReturn], now: float) -> None:
        self._shown = now
        rate = self._num_tokens / max(now - self._began, 1e-9)
        bar.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
        bar.update(self._answers.num_ended - bar.n)
