"""Steps of the engine in, whole answers out. Knows no engine and no thread.

The decode loop is the hot path: a step's rows are kept as arrays and taken apart once, at the end. Only requests with
stop strings are read word by word, because they end by their text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from minisgl.messages import Finish, Generate, Logprobs, Step
from minisgl.tokenizer.decode import Decoder
from minisgl.tokenizer.detokenizer import Detokenizer

Indices = NDArray[np.int64]
FinishReason = Literal["stop", "length", "error"]


@dataclass(frozen=True)
class Output:
    """One answer. `text` is empty for a model without tokenizer; `error` says why one request of many failed."""

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_cached_tokens: int  # of the prompt, found in the prefix cache
    logprobs: list[Logprobs] | None = None  # one per token, when asked for
    stopped_by: str | None = None  # the stop string that ended it
    error: str | None = None


class Answers:
    """The growing answers to one list of requests, whose uids follow one another."""

    def __init__(self, requests: Sequence[Generate], decoder: Decoder | None, abort: Callable[[int], None]) -> None:
        self._requests, self._decoder, self._abort = requests, decoder, abort
        self._first = requests[0].uid if requests else 0
        self._columns: list[tuple[Indices, NDArray[np.int32]]] = []
        self._finish = np.zeros(len(requests), np.uint8)
        self._cached = [0] * len(requests)
        self._errors: dict[int, str] = {}
        self._logprobs: dict[int, list[Logprobs]] = {}
        self._watched = np.array([bool(request.decode.stop) for request in requests], bool)
        self._detokenizer = Detokenizer(decoder) if decoder is not None else None
        self._texts: dict[int, str] = {}  # of watched requests
        self._stops: dict[int, tuple[str, int]] = {}  # index -> stop string, length of the answer in tokens

    def take(self, step: Step) -> Indices:
        """Add one step's rows; returns the index of the request of each new token."""
        indices = np.frombuffer(step.uids, "<i8") - self._first
        tokens = np.frombuffer(step.tokens, "<i4")
        finish = np.frombuffer(step.finish, "u1")
        for opened in step.opened:
            self._cached[opened.uid - self._first] = opened.cached_tokens
        for uid, rows in step.logprobs.items():
            self._logprobs.setdefault(uid - self._first, []).extend(rows)
        for uid, error in step.errors.items():
            self._errors[uid - self._first] = error
        ended = finish != Finish.RUNNING
        self._finish[indices[ended]] = finish[ended]
        if self._detokenizer is not None and self._watched.any():
            self._watch(step, self._detokenizer, self._watched[indices])
        said = tokens >= 0
        indices, tokens = indices[said], tokens[said]
        self._columns.append((indices, tokens))
        return indices

    @property
    def num_ended(self) -> int:
        return int(np.count_nonzero(self._finish))

    def outputs(self) -> list[Output]:
        """All answers, in the order of their requests."""
        indices = np.concatenate([np.empty(0, np.int64), *(column for column, _ in self._columns)])
        tokens = np.concatenate([np.empty(0, np.int32), *(column for _, column in self._columns)])
        order = np.argsort(indices, kind="stable")
        ends = np.cumsum(np.bincount(indices, minlength=len(self._requests)))
        parts = np.split(tokens[order], ends[:-1]) if self._requests else []
        return [self._output(index, part.tolist()) for index, part in enumerate(parts)]

    def _watch(self, step: Step, detokenizer: Detokenizer, rows: NDArray[np.bool_]) -> None:
        """Read the rows of requests with stop strings, and end those that have said one."""
        texts = detokenizer.read(
            Step(
                np.frombuffer(step.uids, "<i8")[rows].tobytes(),
                np.frombuffer(step.tokens, "<i4")[rows].tobytes(),
                np.frombuffer(step.finish, "u1")[rows].tobytes(),
                tuple(opened for opened in step.opened if self._watched[opened.uid - self._first]),
            )
        )
        for text in texts.items if texts else ():
            index = text.uid - self._first
            self._texts[index] = self._texts.get(index, "") + text.text
            if text.stopped_by is not None:
                self._stops[index] = text.stopped_by, text.num_tokens
                if not self._finish[index]:
                    self._abort(text.uid)

    def _output(self, index: int, tokens: list[int]) -> Output:
        request, finish = self._requests[index], Finish(self._finish[index])
        stopped_by, length = self._stops.get(index, (None, len(tokens)))
        if stopped_by is not None:
            finish = Finish.STOP
        logprobs = self._logprobs.get(index, [])[:length] if request.sampling.logprobs is not None else None
        reasons: dict[Finish, FinishReason] = {Finish.STOP: "stop", Finish.LENGTH: "length"}
        return Output(
            text=self._texts.get(index, "") if self._watched[index] else self._text(request, tokens, finish),
            token_ids=tokens[:length],
            finish_reason=reasons.get(finish, "error"),
            num_prompt_tokens=len(request.ids) // 4,
            num_cached_tokens=self._cached[index],
            logprobs=logprobs,
            stopped_by=stopped_by,
            error=self._errors.get(index),
        )

    def _text(self, request: Generate, tokens: list[int], finish: Finish) -> str:
        if self._decoder is None:
            return ""
        if finish == Finish.STOP and not request.decode.include_stop:
            tokens = tokens[:-1]  # an end token counts, but is not text
        stream = self._decoder.open(request.decode.skip_special_tokens)
        return "".join(map(stream.feed, tokens)) + stream.flush()
