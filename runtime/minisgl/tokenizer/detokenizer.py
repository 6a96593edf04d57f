"""Steps of rows in, texts out: the table of open answers, keyed by uid.

An answer opens with `Step.opened` and closes with the scheduler's terminal row, whatever was told to the front end
before. What cannot be read ends the requests it belongs to, never this table. Knows nothing of processes and sockets.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from minisgl.messages import Finish, Logprobs, Opened, PromptToken, Scored, Step, Text, Texts
from minisgl.tokenizer.decode import Decoder, TextStream
from minisgl.tokenizer.reasoning import ReasoningCounter
from minisgl.tokenizer.scores import Scores, tell_prompt
from minisgl.tokenizer.stop import StopScanner

NO_TOKEN = -1
UNREADABLE = "a part of this answer was lost inside the server; send the request again"
QUIET_SECONDS = 1.0  # between two log lines about what was dropped

logger = logging.getLogger(__name__)

Row = tuple[int, int, int]  # uid, token, finish
Reports = dict[int, Iterator[Logprobs]]  # uid -> of its tokens in this step, in order


@dataclass(slots=True)
class Answer:
    """One open answer."""

    stream: TextStream
    scanner: StopScanner
    scores: Scores
    include_stop: bool
    min_tokens: int
    tells_all: bool
    with_ids: bool
    cached_tokens: int
    prompt: tuple[PromptToken, ...] = ()  # until it is told, with the first text
    ids: list[int] = field(default_factory=list)  # since the last text
    reasoning: ReasoningCounter | None = None
    num_tokens: int = 0
    has_failed: bool = False

    @property
    def is_told(self) -> bool:
        """A stop string or an error here ended it: the front end knows, the scheduler's terminal row is to come."""
        return self.has_failed or self.scanner.stopped_by is not None


class Detokenizer:
    """All open answers of one server. `on_drop` is called for each row or step that makes no sense."""

    def __init__(self, decoder: Decoder, on_drop: Callable[[], None] = lambda: None) -> None:
        self._decoder, self._on_drop = decoder, on_drop
        self._answers: dict[int, Answer] = {}
        self.dropped = 0
        self._logged_at = 0.0

    def __len__(self) -> int:
        return len(self._answers)

    def read(self, step: Step) -> Texts | None:
        """What one step means in words; None when there is nothing to tell. Never raises."""
        for opened in step.opened:
            self._open(opened)
        reports = {uid: iter(reported) for uid, reported in step.logprobs.items()}
        try:
            items = [text for row in rows_of(step) if (text := self._read_row(row, step.errors, reports)) is not None]
        except ValueError as error:
            items = self._lose(step, str(error))
        return Texts(tuple(items), step.stats) if items or step.stats else None

    def _read_row(self, row: Row, errors: dict[int, str], reports: Reports) -> Text | None:
        """One row's text; a row that cannot be decoded is the end of its own request only."""
        uid, token, number = row
        try:
            finish = Finish(number)
            if uid not in self._answers and not finish:
                self._drop(f"unknown uid={uid}")
                return None
            return self._row(uid, token, finish, errors.get(uid), reports.get(uid))
        except Exception as error:  # a decoder may fail in any way
            self._drop(f"row uid={uid} token={token} finish={number} error={error!r}")
            return self._fail(uid)

    def _lose(self, step: Step, why: str) -> list[Text]:
        """A step without readable rows: whoever may have had one cannot get a right answer any more."""
        self._drop(f"step error={why}")
        known = np.frombuffer(step.uids, "<i8").tolist() if len(step.uids) % 8 == 0 else list(self._answers)
        texts = [text for uid in known if (text := self._fail(uid)) is not None]
        for uid in known:  # its terminal row may have been in this step: nothing more may come
            self._answers.pop(uid, None)
        return texts

    def _fail(self, uid: int) -> Text | None:
        """End one request with an error, unless its front end was told of its end before."""
        answer = self._answers.get(uid)
        if answer is None:
            return Text(uid, "", 0, 0, Finish.ERROR, error=UNREADABLE)
        if answer.is_told:
            return None
        answer.has_failed = True
        return Text(uid, "", answer.num_tokens, answer.cached_tokens, Finish.ERROR, error=UNREADABLE)

    def _drop(self, what: str) -> None:
        self.dropped += 1
        self._on_drop()
        now = time.monotonic()
        if now - self._logged_at >= QUIET_SECONDS:
            self._logged_at = now
            logger.warning("dropped %s total=%d", what, self.dropped)

    def _open(self, opened: Opened) -> None:
        params, skip = opened.decode, opened.decode.skip_special_tokens
        self._answers[opened.uid] = Answer(
            self._decoder.open(skip, params.shows_marks),
            StopScanner(params.stop, params.include_stop),
            Scores(self._decoder, skip and not params.tells_all, params.shows_marks),
            params.include_stop,
            params.min_tokens,
            params.tells_all,
            params.with_ids,
            opened.cached_tokens,
            tell_prompt(self._decoder, opened.prompt, skip) if opened.prompt is not None else (),
            reasoning=ReasoningCounter(params.thinking) if params.thinking else None,
        )

    def _row(
        self, uid: int, token: int, finish: Finish, error: str | None, reports: Iterator[Logprobs] | None
    ) -> Text | None:
        answer = self._answers.get(uid)
        if answer is None:  # ended before its first token
            return Text(uid, "", 0, 0, finish, error=error) if finish else None
        if finish:
            del self._answers[uid]
        if answer.is_told:
            return None
        text = self._words(answer, token, finish, next(reports, None) if reports and token != NO_TOKEN else None)
        tokens: tuple[Scored, ...] = ()
        if reports is not None or finish:
            tokens = answer.scores.show(len(text), is_end=bool(finish) and not answer.is_told)
        if answer.is_told:
            finish = Finish.STOP
        if not text and not finish and answer.num_tokens > 1:
            return None
        stopped_by = answer.scanner.stopped_by
        ids, prompt = b"", answer.prompt
        if answer.with_ids:
            ids = np.array(answer.ids, "<i4").tobytes()
            answer.ids.clear()
        answer.prompt = ()
        num_reasoning = answer.reasoning.num_tokens if answer.reasoning is not None else 0
        return Text(
            uid,
            text,
            answer.num_tokens,
            answer.cached_tokens,
            finish,
            stopped_by,
            error,
            tokens,
            ids,
            prompt,
            num_reasoning,
        )

    def _words(self, answer: Answer, token: int, finish: Finish, logprobs: Logprobs | None) -> str:
        text = ""
        if token != NO_TOKEN:
            answer.num_tokens += 1
            if answer.with_ids:
                answer.ids.append(token)
            piece = ""
            if finish != Finish.STOP or answer.include_stop:  # an end token counts, but is not text
                piece = answer.stream.feed(token)
                if logprobs is not None:
                    answer.scores.add(token, logprobs, piece)
                text = answer.scanner.feed(piece) if answer.num_tokens > answer.min_tokens else piece
            elif logprobs is not None and answer.tells_all:
                answer.scores.add(token, logprobs, "")
            if answer.reasoning is not None:
                answer.reasoning.add(piece)
        if finish and not answer.is_told:
            text += answer.scanner.feed(answer.stream.flush())
            if not answer.is_told:
                text += answer.scanner.flush()
        return text


def rows_of(step: Step) -> list[Row]:
    """The step's rows; ValueError when its arrays do not fit together."""
    uids, tokens = np.frombuffer(step.uids, "<i8").tolist(), np.frombuffer(step.tokens, "<i4").tolist()
    return list(zip(uids, tokens, step.finish, strict=True))
