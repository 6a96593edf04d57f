"""Decides which tokens run next. Pure: no torch, no sockets, no clock; `plan` and `complete` alternate.

Life of a request; each arrow out of the box happens exactly once and brings its terminal row:

    add ──► waiting ──admit──► row ──► STOP | LENGTH | ERROR | ABORT
               ▲                │           an abort of a row in flight waits for `complete`
               └──── preempt ───┘           (pages ran out; the youngest row gives way and is recomputed)

A row has tokens to compute: one (decode) or more (prefill, in chunks). Decoding rows go first in every step, the rest
of the token budget goes to prefills by age. A row may take pages from any younger one, never from an older one, and
nothing overtakes the head of the queue; so the oldest request always moves, and each becomes the oldest.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minisgl.engine.batch import Batch
from minisgl.kvcache.base import PrefixCache
from minisgl.messages import Finish, Generate, Opened, Stats
from minisgl.scheduler.pages import PageTable
from minisgl.scheduler.results import Results
from minisgl.scheduler.rows import Index, Request, RowTable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SchedulerConfig:
    """The limits of the scheduler. `context_length` fits into the pages, so that any one request can run alone."""

    num_pages: int
    page_size: int
    max_running: int
    max_step_tokens: int
    context_length: int
    vocab_size: int
    eos_token_ids: tuple[int, ...] = ()


class Scheduler:
    """The state of all requests. `results` is for the caller to take after each step."""

    def __init__(self, config: SchedulerConfig, cache: PrefixCache, seed: int | None = None) -> None:
        self.config = config
        self.results = Results()
        # More rows than tokens in a step could never all decode.
        num_rows = min(config.max_running, config.max_step_tokens)
        self._rows = RowTable(num_rows, config.context_length)
        self._pages = PageTable(config.num_pages, config.page_size, num_rows, config.context_length, cache)
        self._waiting: deque[Request] = deque()
        self._known: dict[int, Request] = {}
        self._row_of: dict[int, int] = {}
        self._in_flight: Index | None = None
        self._soiled: list[NDArray[np.int32]] = []  # pages that the next step has to scrub
        self._eos = np.array(config.eos_token_ids, np.int32)
        self._random = np.random.default_rng(seed)
        self._arrivals = self._steps = self._queried = self._hits = self._preemptions = 0

    # ---- requests come and go

    @property
    def has_work(self) -> bool:
        return bool(self._known)

    def add(self, message: Generate) -> None:
        """Queue a request; one that can never run ends at once, with the reason."""
        if message.uid in self._known:
            log.warning("request ignored, its number is in use uid=%d", message.uid)
            return
        ids, sampling = np.frombuffer(message.ids, np.int32), message.sampling
        drawn = int(self._random.integers(2**63)) if sampling.seed is None else sampling.seed
        request = Request(
            uid=message.uid,
            arrival=self._arrivals,
            ids=ids,
            max_len=len(ids) + sampling.max_tokens,
            seed=drawn % 2**64,
            sampling=sampling,
            decode=message.decode,
        )
        self._arrivals += 1
        self._known[request.uid] = request
        if (why := self._why_impossible(request)) is not None:
            self._end(request, Finish.ERROR, why)
        else:
            self._waiting.append(request)

    def abort(self, uid: int) -> None:
        """End a request early, wherever it stands; an unknown one has ended already."""
        request = self._known.get(uid)
        if request is None:
            return
        row = self._row_of.get(uid)
        if row is None:
            self._waiting.remove(request)
        elif self._in_flight is not None and row in self._in_flight:
            self._rows.aborted[row] = True  # its pages are being written; `complete` ends it
            return
        else:
            self._leave(row)
        self._end(request, Finish.ABORT)

    def fail_all(self, why: str) -> None:
        """End every request, for an engine that will not answer again."""
        self._in_flight = None
        for row in list(self._row_of.values()):
            self._leave(row, keep=False)
        self._waiting.clear()
        for request in list(self._known.values()):
            self._end(request, Finish.ERROR, why)

    # ---- steps

    def plan(self) -> Batch | None:
        """Decide the next step; None when there is nothing to compute."""
        assert self._in_flight is None, "the step before is not complete"
        rows, pages = self._rows, self._pages
        counts = np.zeros(len(rows.used), np.int32)  # tokens per row in this step; a preempted row falls back to 0
        by_age = rows.by_age()
        pending = rows.length[by_age] - rows.computed[by_age]

        decoding = by_age[pending == 1]
        while not pages.extend(decoding, rows.length[decoding]):
            self._preempt(int(rows.by_age()[-1]), counts)
            decoding = decoding[rows.used[decoding]]
        counts[decoding] = 1

        for row in by_age[pending > 1].tolist():
            if rows.used[row]:
                self._grow_prefill(row, counts)
        self._admit(counts)

        chosen = rows.by_age()
        chosen = chosen[counts[chosen] > 0]
        if not len(chosen):
            return None
        chosen = chosen[np.argsort(counts[chosen] > 1, kind="stable")]  # single tokens first
        self._in_flight = chosen
        self._steps += 1
        return self._batch(chosen, counts[chosen])

    def complete(self, batch: Batch, tokens: NDArray[np.int32], failed: NDArray[np.bool_]) -> None:
        """Take in what the engine sampled: one token per entry of `batch.sampled`, or `failed` (no usable logits)."""
        assert self._in_flight is not None, "no step is in flight"
        rows, in_flight = self._rows, self._in_flight
        self._in_flight = None
        rows.computed[in_flight] += batch.counts
        aborted = in_flight[rows.aborted[in_flight]]
        sampled = in_flight[batch.sampled]
        spoiled = set(sampled[failed].tolist())  # rows whose keys and values nobody may reuse
        self._soiled += [self._pages.table[row, : self._pages.held[row]].copy() for row in spoiled]
        live = ~rows.aborted[sampled]
        sampled, tokens, failed = sampled[live], tokens[live], failed[live]

        finish = self._judge(sampled, tokens, failed)
        good = sampled[~failed]
        rows.tokens[good, rows.length[good] - 1] = tokens[~failed]
        for row in sampled[~rows.opened[sampled]].tolist():
            self._open(rows.request[row])
            rows.opened[row] = True
        self.results.add(rows.uid[sampled], np.where(failed, -1, tokens), finish)

        for row in sampled[finish != Finish.RUNNING].tolist():
            if row in spoiled:
                self.results.errors[int(rows.uid[row])] = (
                    "the model gave no usable probabilities for this request (NaN or infinity); "
                    "try other input, or --dtype float32"
                )
            request = self._leave(row, keep=row not in spoiled)
            del self._known[request.uid]
        for row in aborted.tolist():
            self._end(self._leave(row, keep=row not in spoiled), Finish.ABORT)
        for row in in_flight[batch.counts > 1].tolist():
            if rows.used[row]:  # let others reuse this chunk while the request goes on
                self._pages.share(row, rows.tokens[row, : rows.computed[row]])

    def stats(self) -> Stats:
        size, pages = self.config.page_size, self._pages
        return Stats(
            running=len(self._row_of),
            waiting=len(self._waiting),
            kv_used_tokens=(pages.num_pages - pages.available) * size,
            kv_cached_tokens=pages.cache.evictable_pages * size,
            kv_total_tokens=pages.num_pages * size,
            steps_total=self._steps,
            prefix_query_tokens_total=self._queried,
            prefix_hit_tokens_total=self._hits,
            preemptions_total=self._preemptions,
        )

    def check_integrity(self) -> None:
        """Raise RuntimeError where the books do not agree; for tests and for idle times."""
        self._pages.check_integrity()
        if set(self._known) != {r.uid for r in self._waiting} | set(self._row_of):
            raise RuntimeError("a request is neither waiting nor in a row")

    # ---- inside plan

    def _grow_prefill(self, row: int, counts: NDArray[np.int32]) -> None:
        """Give an admitted row its next chunk, taking pages from younger rows; a row without pages waits a step."""
        rows = self._rows
        count = min(self._budget(counts), int(rows.length[row] - rows.computed[row]))
        end = rows.computed[[row]] + count
        while not self._pages.extend(np.array([row]), end):
            youngest = int(rows.by_age()[-1])
            if youngest == row:
                return
            self._preempt(youngest, counts)
        counts[row] = count

    def _admit(self, counts: NDArray[np.int32]) -> None:
        """Move requests from the queue into rows, in order, while their whole prompts find pages."""
        rows, pages = self._rows, self._pages
        while self._waiting and (budget := self._budget(counts)) > 0 and (row := rows.free_row()) is not None:
            request = self._waiting[0]
            found = pages.open(row, request.ids)
            # What running rows are sure to need: the rest of their prompts, and a page each to go on.
            running = np.flatnonzero(rows.used)
            promised = np.maximum(-(-rows.length[running] // pages.page_size) - pages.held[running], 0) + 1
            if pages.pages_for(len(request.ids) + 1) - int(pages.held[row]) + int(promised.sum()) > pages.available:
                pages.close(row, request.ids[:0])
                return
            self._waiting.popleft()
            rows.put(row, request, found)
            self._row_of[request.uid] = row
            if request.cached_tokens < 0:
                request.cached_tokens = found
                self._queried += len(request.ids)
                self._hits += found
            counts[row] = min(budget, len(request.ids) - found)
            fits = pages.extend(np.array([row]), rows.computed[[row]] + counts[row])
            assert fits, "the check above covers the first chunk"

    def _budget(self, counts: NDArray[np.int32]) -> int:
        return self.config.max_step_tokens - int(counts.sum())

    def _preempt(self, row: int, counts: NDArray[np.int32]) -> None:
        """Send a row back to the head of the queue. Its pages stay findable until others need them."""
        self._waiting.appendleft(self._leave(row))
        self._preemptions += 1
        counts[row] = 0

    def _batch(self, chosen: Index, counts: NDArray[np.int32]) -> Batch:
        rows = self._rows
        starts = rows.computed[chosen]
        ends = starts + counts
        sampled = np.flatnonzero(ends == rows.length[chosen]).astype(np.int32)
        owner = np.repeat(chosen, counts)
        nth = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        who = chosen[sampled]
        soiled, self._soiled = self._soiled, []
        return Batch(
            tokens=rows.tokens[owner, rows.computed[owner] + nth],
            starts=starts,
            counts=counts,
            pages=self._pages.table[chosen, : self._pages.pages_for(int(ends.max()))],
            sampled=sampled,
            temperature=rows.temperature[who],
            top_k=rows.top_k[who],
            top_p=rows.top_p[who],
            min_p=rows.min_p[who],
            seeds=rows.seed[who],
            scrub=np.concatenate(soiled) if soiled else np.empty(0, np.int32),
        )

    # ---- ends

    def _judge(self, sampled: Index, tokens: NDArray[np.int32], failed: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Count the new tokens and say which requests they end."""
        rows = self._rows
        rows.length[sampled[~failed]] += 1
        finish = np.where(rows.length[sampled] >= rows.max_len[sampled], Finish.LENGTH, Finish.RUNNING).astype(np.uint8)
        finish[rows.stops_at_eos[sampled] & np.isin(tokens, self._eos)] = Finish.STOP
        for i in np.flatnonzero(rows.has_stop_ids[sampled]).tolist():
            request = rows.request[sampled[i]]
            if request is not None and int(tokens[i]) in request.sampling.stop_token_ids:
                finish[i] = Finish.STOP
        finish[failed] = Finish.ERROR
        return finish

    def _open(self, request: Request | None) -> None:
        assert request is not None
        request.opened = True
        self.results.opened.append(Opened(request.uid, max(0, request.cached_tokens), request.decode))

    def _leave(self, row: int, *, keep: bool = True) -> Request:
        """Take a request out of its row and give its pages back, once."""
        request = self._rows.take(row)
        self._pages.close(row, request.ids[: self._rows.computed[row] if keep else 0])
        del self._row_of[request.uid]
        return request

    def _end(self, request: Request, finish: Finish, error: str | None = None) -> None:
        if not request.opened:
            self._open(request)
        self.results.end(request.uid, finish, error)
        del self._known[request.uid]

    def _why_impossible(self, request: Request) -> str | None:
        limit = self.config.context_length
        if not len(request.ids):
            return "the prompt is empty; send at least one token"
        if request.sampling.max_tokens < 1:
            return f"max_tokens is {request.sampling.max_tokens}; ask for at least 1"
        if request.max_len > limit:
            return (
                f"prompt ({len(request.ids)} tokens) plus max_tokens ({request.sampling.max_tokens}) is more than the "
                f"context of {limit} tokens; shorten one of them"
            )
        if request.ids.min() < 0 or request.ids.max() >= self.config.vocab_size:
            return f"the prompt holds a token outside the vocabulary of {self.config.vocab_size}"
        return None
