"""The table of open requests: who waits for what, and exactly one end for each.

    opened ──tokenize──► tokenizing ──► idle ──generate──► generating ──terminal text──► (removed)
       a client that leaves: idle → removed; tokenizing, generating → abandoned, removed by the answer that still comes

So the table's size bounds what is in the pipes behind it. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto

import msgspec
import numpy as np
from numpy.typing import NDArray

from minisgl.errors import BackendDied, MiniSGLError, Overloaded, RequestError
from minisgl.messages import (
    Abort,
    DecodeParams,
    Detokenize,
    Detokenized,
    Finish,
    Flush,
    Generate,
    SamplingParams,
    Text,
    Texts,
    Tokenize,
    Tokenized,
)
from minisgl.metrics import Metrics

RETRY_AFTER_SECONDS = 1

logger = logging.getLogger(__name__)


class State(Enum):
    """Where a ticket is in its life."""

    IDLE = auto()
    TOKENIZING = auto()
    GENERATING = auto()
    ABANDONED = auto()
    ENDED = auto()


class Bell:
    """Wakes the one task that serves a client. It keeps no ring: look first, then wait. Lighter than an Event."""

    _waiter: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def ring(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@dataclass(eq=False)
class Ticket:
    """One open request. What comes faster than the client reads is merged, so a slow reader costs its text only."""

    uid: int
    request_id: str  # the client's, or of the front end's making; all choices of one answer have the same
    opened_at: float
    bell: Bell  # one for all tickets that were opened together
    state: State = State.IDLE
    prompt_len: int = 0
    max_tokens: int = 0
    first_token_at: float = 0.0
    last_token_at: float = 0.0
    num_tokens: int = 0
    _words: Tokenized | Detokenized | None = None
    _text: Text | None = None
    _error: MiniSGLError | None = None

    def take(self, text: Text) -> None:
        if self._text is not None:
            before = self._text
            text = msgspec.structs.replace(
                text,
                text=before.text + text.text,
                tokens=before.tokens + text.tokens,
                ids=before.ids + text.ids,
                prompt=before.prompt + text.prompt,
            )
        self._text = text
        self.bell.ring()

    def take_words(self, words: Tokenized | Detokenized) -> None:
        self._words = words
        self.bell.ring()

    def fail(self, error: MiniSGLError) -> None:
        self._error = error
        self.bell.ring()

    def poll(self) -> Text | None:
        """What came since the last call, if anything did. Raises the error that ended the request."""
        text = self._text
        if text is None and self._error is not None:
            raise self._error
        self._text = None
        return text

    async def next_text(self) -> Text:
        """What came since the last call; waits for it. Raises the error that ended the request."""
        while (text := self.poll()) is None:
            await self.bell.wait()
        return text

    async def next_words(self) -> Tokenized | Detokenized:
        """The tokenizer's answer."""
        while (words := self._words) is None:
            if self._error is not None:
                raise self._error
            await self.bell.wait()
        self._words = None
        return words


class RequestTable:
    """All open requests of the server. Lives in the event loop; `send_…` put one message into a pipe."""

    def __init__(
        self,
        limit: int,
        metrics: Metrics,
        send_to_tokenizer: Callable[[Tokenize | Detokenize], None],
        send_to_scheduler: Callable[[Generate | Abort | Flush], None],
    ) -> None:
        self.limit, self._metrics = limit, metrics
        self._send_to_tokenizer, self._send_to_scheduler = send_to_tokenizer, send_to_scheduler
        self._tickets: dict[int, Ticket] = {}
        self._uids = itertools.count(1)
        self.on_empty: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._tickets)

    @contextmanager
    def open(self) -> Iterator[Ticket]:
        """Admit one request; leaving the block early (client gone, error) takes it back."""
        with self.open_many(1) as (ticket,):
            yield ticket

    @contextmanager
    def open_many(self, count: int, request_id: str = "", *, is_unique: bool = False) -> Iterator[list[Ticket]]:
        """Admit `count` requests of one client, or none of them. `is_unique`: no open one may have this name."""
        if is_unique and any(ticket.request_id == request_id for ticket in self._tickets.values()):
            raise RequestError(
                f"A request {request_id!r} is open already; choose another name, or abort it first.",
                status=409,
                code="request_id_in_use",
                param="request_id",
            )
        if len(self._tickets) + count > self.limit:
            raise Overloaded(
                f"{len(self._tickets)} requests are open or wait, and {self.limit} is the limit; try again later.",
                retry_after=RETRY_AFTER_SECONDS,
            )
        now, bell = time.monotonic(), Bell()
        tickets = [Ticket(next(self._uids), request_id, now, bell) for _ in range(count)]
        self._tickets |= {ticket.uid: ticket for ticket in tickets}
        try:
            yield tickets
        finally:
            for ticket in tickets:
                self._abandon(ticket)

    async def tokenize(self, ticket: Ticket, request: Tokenize) -> NDArray[np.int32]:
        """Ids of the request's words; its `uid` is set here."""
        return np.frombuffer((await self.words(ticket, request)).ids, "<i4")

    async def words(self, ticket: Ticket, request: Tokenize) -> Tokenized:
        """All that the tokenizer says of the request's words."""
        words = await self._ask(ticket, request)
        assert isinstance(words, Tokenized)
        return words

    async def detokenize(self, ticket: Ticket, request: Detokenize) -> str:
        """Text of the request's ids; its `uid` is set here."""
        words = await self._ask(ticket, request)
        assert isinstance(words, Detokenized)
        return words.text

    def generate(
        self,
        ticket: Ticket,
        ids: NDArray[np.int32],
        sampling: SamplingParams,
        decode: DecodeParams,
        priority: int = 0,
        cache_salt: str = "",
    ) -> None:
        """Hand the request to the scheduler; its texts come through `ticket.next_text()`."""
        ticket.state = State.GENERATING
        ticket.prompt_len, ticket.max_tokens = len(ids), sampling.max_tokens
        data = ids.astype("<i4").tobytes()
        self._send_to_scheduler(Generate(ticket.uid, data, sampling, decode, priority, cache_salt))

    def flush(self) -> None:
        """Let the scheduler forget prefixes, before anything that is sent later."""
        self._send_to_scheduler(Flush())

    def abort(self, request_id: str | None) -> int:
        """End the generations of one request, or all (None) that have not ended; returns how many they are.

        One that the scheduler has ends as it says; one that has not come so far ends with an error here.
        """
        found = [ticket for ticket in self._tickets.values() if request_id in (None, ticket.request_id)]
        found = [ticket for ticket in found if ticket.state is not State.ABANDONED]
        for ticket in found:
            if ticket.state is State.GENERATING:
                self._send_to_scheduler(Abort(ticket.uid))
            else:
                ticket.fail(RequestError("The request was aborted before it was computed.", code="aborted"))
        logger.info("aborted request=%s generations=%d", request_id or "all", len(found))
        return len(found)

    def receive(self, message: Tokenized | Detokenized | Texts) -> None:
        """An answer of the words floor."""
        if not isinstance(message, Texts):
            self._take_words(message)
            return
        now, num_tokens = time.monotonic(), 0
        for text in message.items:
            num_tokens += self._take_text(text, now)
        self._metrics.generation_tokens.inc(num_tokens)
        if message.stats is not None:
            self._metrics.take(message.stats)

    def fail_all(self, message: str) -> None:
        """The backend is gone: every open request ends with this error."""
        for ticket in list(self._tickets.values()):
            if ticket.state is State.GENERATING:
                self._count_end(ticket, Finish.ERROR, time.monotonic())
            ticket.fail(BackendDied(message))
            self._remove(ticket)

    async def _ask(self, ticket: Ticket, request: Tokenize | Detokenize) -> Tokenized | Detokenized:
        try:
            self._send_to_tokenizer(msgspec.structs.replace(request, uid=ticket.uid))
        except (OverflowError, RecursionError):  # JSON that a client chose, which no message between processes can hold
            message = "The messages hold a number of more than 64 bits, or are nested too deeply."
            raise RequestError(message, code="invalid_prompt") from None
        ticket.state = State.TOKENIZING  # from here on an answer comes, before which its number is not free
        return await ticket.next_words()

    def _take_words(self, message: Tokenized | Detokenized) -> None:
        ticket = self._tickets.get(message.uid)
        if ticket is None:
            return
        if ticket.state is State.ABANDONED:
            self._remove(ticket)
            return
        ticket.state = State.IDLE
        if message.error is not None:
            ticket.fail(RequestError(message.error, code="invalid_prompt"))
        else:
            ticket.take_words(message)

    def _take_text(self, text: Text, now: float) -> int:
        """Returns how many tokens are new."""
        ticket = self._tickets.get(text.uid)
        if ticket is None:
            return 0
        new_tokens = self._count(ticket, text, now)
        # An answer that could not be put into words still runs in the scheduler; one that failed there is forgotten.
        if text.stopped_by is not None or text.finish is Finish.ERROR:
            self._send_to_scheduler(Abort(text.uid))
        if text.finish:
            self._remove(ticket)
        if text.finish is Finish.ERROR:
            logger.warning("generation failed request=%s uid=%d: %s", ticket.request_id, ticket.uid, text.error)
            ticket.fail(RequestError(text.error or "The request failed.", status=500, code="internal_error"))
        else:
            ticket.take(text)
        return new_tokens

    def _count(self, ticket: Ticket, text: Text, now: float) -> int:
        metrics, new_tokens = self._metrics, text.num_tokens - ticket.num_tokens
        if new_tokens > 0:
            if ticket.num_tokens == 0:
                ticket.first_token_at = now
                metrics.first_token.observe(now - ticket.opened_at)
                metrics.prompt_tokens.inc(ticket.prompt_len)
                metrics.cached_tokens.inc(text.cached_tokens)
            else:
                metrics.between_tokens.observe((now - ticket.last_token_at) / new_tokens)
            ticket.num_tokens, ticket.last_token_at = text.num_tokens, now
        elif text.finish is Finish.LENGTH and text.num_tokens == 0:  # no answer was asked for
            metrics.prompt_tokens.inc(ticket.prompt_len)
            metrics.cached_tokens.inc(text.cached_tokens)
        if text.finish:
            self._count_end(ticket, text.finish, now)
        return max(0, new_tokens)

    def _count_end(self, ticket: Ticket, finish: Finish, now: float) -> None:
        metrics = self._metrics
        metrics.ends[finish].inc()
        metrics.duration.observe(now - ticket.opened_at)
        metrics.prompt_sizes.observe(ticket.prompt_len)
        metrics.answer_sizes.observe(ticket.num_tokens)
        metrics.answer_limits.observe(ticket.max_tokens)
        if ticket.num_tokens > 1:
            metrics.per_token.observe((ticket.last_token_at - ticket.first_token_at) / (ticket.num_tokens - 1))

    def _abandon(self, ticket: Ticket) -> None:
        match ticket.state:
            case State.IDLE:
                self._remove(ticket)
            case State.TOKENIZING:
                ticket.state = State.ABANDONED
            case State.GENERATING:
                ticket.state = State.ABANDONED
                self._send_to_scheduler(Abort(ticket.uid))
            case State.ABANDONED | State.ENDED:
                pass

    def _remove(self, ticket: Ticket) -> None:
        ticket.state = State.ENDED
        del self._tickets[ticket.uid]
        if not self._tickets:
            self.on_empty()
