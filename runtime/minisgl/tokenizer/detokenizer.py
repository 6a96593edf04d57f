"""Steps of rows in, texts out: the table of open answers, keyed by uid.

An answer opens with `Step.opened` and closes with the scheduler's terminal row, whatever was told to the front end
before. Knows nothing of processes and sockets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisgl.messages import Finish, Opened, Step, Text, Texts
from minisgl.tokenizer.decode import Decoder, TextStream
from minisgl.tokenizer.stop import StopScanner

NO_TOKEN = -1


@dataclass(slots=True)
class Answer:
    """One open answer."""

    stream: TextStream
    scanner: StopScanner
    include_stop: bool
    cached_tokens: int
    num_tokens: int = 0

    @property
    def is_told(self) -> bool:
        """A stop string ended it: the front end knows, the scheduler's terminal row is still to come."""
        return self.scanner.stopped_by is not None


class Detokenizer:
    """All open answers of one server."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._answers: dict[int, Answer] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def read(self, step: Step) -> Texts | None:
        """What one step means in words; None when there is nothing to tell."""
        for opened in step.opened:
            self._open(opened)
        items = []
        rows = zip(
            np.frombuffer(step.uids, "<i8").tolist(),
            np.frombuffer(step.tokens, "<i4").tolist(),
            np.frombuffer(step.finish, "u1").tolist(),
            strict=True,
        )
        for uid, token, finish in rows:
            if (text := self._row(uid, token, Finish(finish), step.errors.get(uid))) is not None:
                items.append(text)
        return Texts(tuple(items), step.stats) if items or step.stats else None

    def _open(self, opened: Opened) -> None:
        params = opened.decode
        self._answers[opened.uid] = Answer(
            self._decoder.open(params.skip_special_tokens),
            StopScanner(params.stop, params.include_stop),
            params.include_stop,
            opened.cached_tokens,
        )

    def _row(self, uid: int, token: int, finish: Finish, error: str | None) -> Text | None:
        answer = self._answers.get(uid)
        if answer is None:  # ended before its first token
            return Text(uid, "", 0, 0, finish, error=error) if finish else None
        if finish:
            del self._answers[uid]
        if answer.is_told:
            return None
        text = self._words(answer, token, finish)
        if answer.is_told:
            finish = Finish.STOP
        if not text and not finish and answer.num_tokens > 1:
            return None
        return Text(uid, text, answer.num_tokens, answer.cached_tokens, finish, answer.scanner.stopped_by, error)

    def _words(self, answer: Answer, token: int, finish: Finish) -> str:
        text = ""
        if token != NO_TOKEN:
            answer.num_tokens += 1
            if finish != Finish.STOP or answer.include_stop:  # an end token counts, but is not text
                text = answer.scanner.feed(answer.stream.feed(token))
        if finish and not answer.is_told:
            text += answer.scanner.feed(answer.stream.flush())
            if not answer.is_told:
                text += answer.scanner.flush()
        return text
