"""Decides which tokens run next. Pure: no torch, no sockets, no clock.

    plan 1 ─► plan 2 ─► complete 1 ─► plan 3 ─► complete 2 ─► …     at most two steps are in flight; without overlap
                                                                    each plan is completed before the next

Life of a request; each arrow out of the box happens exactly once and brings its terminal result:

    add ──► waiting ──admit──► row ──► STOP | LENGTH | ERROR | ABORT
               ▲                │           the row itself leaves when no step in flight holds it
               └──── preempt ───┘           (pages ran out; the last in turn gives way and is recomputed)

A row has tokens to compute: one (decode) or more (prefill, in chunks). Decoding rows go first in every step, the rest
of the budget is for prefills by turn, half of a long one's for much shorter ones. A row may take pages from any later
one, never from an earlier one; what waits for pages can be overtaken only so often. So the first in turn always moves.

A step may be planned before the one before has brought its tokens: a decoding row's length is known, its token is not
(NOT_KNOWN), and the engine fills it in. If that token ends the request, the later step was in vain and is ignored.
"""

from __future__ import annotations

import logging
from collections import deque

import numpy as np
from numpy.typing import NDArray

from minisgl.engine.batch import NOT_KNOWN, Batch, Sampled
from minisgl.kvcache.base import PrefixCache
from minisgl.messages import Finish, Generate, Opened, Stats
from minisgl.scheduler.assembly import assemble, order
from minisgl.scheduler.budget import Ask, Budget
from minisgl.scheduler.config import SchedulerConfig
from minisgl.scheduler.grammar import Held, Hold
from minisgl.scheduler.pages import PageTable
from minisgl.scheduler.queue import Queue
from minisgl.scheduler.results import Results
from minisgl.scheduler.rows import Index, Request, RowTable
from minisgl.scheduler.scores import PromptScores, by_row

MOST_OVERTAKING = 64  # later requests that may be admitted before one that waits for pages
MOST_LOOKED_AT = 8  # waiting requests that are tried in one step

RUNNING, LENGTH = np.uint8(Finish.RUNNING), np.uint8(Finish.LENGTH)

log = logging.getLogger(__name__)


class Scheduler:
    """The state of all requests. `results` is for the caller to take after each step."""

    def __init__(
        self, config: SchedulerConfig, cache: PrefixCache, seed: int | None = None, hold: Hold | None = None
    ) -> None:
        """`hold` compiles the grammars of requests that have one."""
        self.config, self._hold = config, hold
        self.results = Results()
        self._rows = RowTable(config.num_rows, config.context_length)
        self._pages = PageTable(config.num_pages, config.page_size, config.num_rows, config.context_length, cache)
        self._waiting = Queue()
        self._known: dict[int, Request] = {}  # what has no terminal result yet
        self._row_of: dict[int, int] = {}
        self._flights: deque[Batch] = deque()
        self._soiled: list[NDArray[np.int32]] = []  # pages that the next step has to scrub
        self._is_eos = np.zeros(config.vocab_size, bool)
        self._is_eos[[token for token in config.eos_token_ids if token < config.vocab_size]] = True
        self._random = np.random.default_rng(seed)
        self._budget = Budget(config.max_step_tokens, config.even_past)
        self._arrivals = self._steps = self._queried = self._hits = self._preemptions = 0

    # ---- requests come and go

    @property
    def has_work(self) -> bool:
        return bool(self._known or self._flights)

    def add(self, message: Generate) -> None:
        """Queue a request; one that can never run ends at once, with the reason."""
        if message.uid in self._known:
            log.warning("request ignored, its number is in use uid=%d", message.uid)
            return
        ids, sampling = np.frombuffer(message.ids, np.int32), message.sampling
        drawn = int(self._random.integers(2**63)) if sampling.seed is None else sampling.seed
        request = Request(
            uid=message.uid,
            priority=message.priority,
            arrival=self._arrivals,
            ids=ids,
            prompt_len=len(ids),
            max_len=len(ids) + max(1, sampling.max_tokens),
            seed=drawn % 2**64,
            sampling=sampling,
            decode=message.decode,
            salt=message.cache_salt.encode(),
            withheld=self.config.ends_of(sampling) if sampling.min_tokens else (),
            scores=None if sampling.prompt_logprobs is None else PromptScores(ids, sampling.prompt_logprobs),
            held=self._hold(sampling.grammar) if sampling.grammar and self._hold is not None else None,
        )
        self._arrivals += 1
        self._known[request.uid] = request
        if (why := self.config.why_impossible(request)) is not None:
            self._tell_end(request, Finish.ERROR, why)
        else:
            self._waiting.put(request)

    def refuse(self, message: Generate, why: str) -> None:
        """End a request that `add` raised on."""
        if (request := self._known.get(message.uid)) is not None:
            self._tell_end(request, Finish.ERROR, why)
        else:
            self.results.opened.append(Opened(message.uid, 0, message.decode))
            self.results.end(message.uid, Finish.ERROR, why)

    def abort(self, uid: int) -> None:
        """End a request early, wherever it stands; an unknown one has ended already."""
        if (request := self._known.get(uid)) is None:
            return
        if (row := self._row_of.get(uid)) is None:
            self._waiting.remove(request)
            self._tell_end(request, Finish.ABORT)
        else:
            self._tell_end(self._retire(row), Finish.ABORT)
            self._let_go(np.array([row]))

    def flush(self) -> None:
        """Forget the prefixes that no request holds."""
        self._pages.flush()

    def fail_all(self, why: str) -> None:
        """End every request, for an engine that will not answer again."""
        self._flights.clear()
        self._rows.flights[:] = 0
        for request in list(self._known.values()):
            self._tell_end(request, Finish.ERROR, why)
        self._waiting.clear()
        self._rows.ended[:] = self._rows.spoiled[:] = self._rows.used
        self._let_go(np.flatnonzero(self._rows.used))

    # ---- steps

    def plan(self) -> Batch | None:
        """Decide the next step; None when there is nothing to compute before a step in flight is complete."""
        assert len(self._flights) < 2, "two steps are in flight"
        rows, pages = self._rows, self._pages
        counts = np.zeros(len(rows.used), np.int32)  # tokens per row in this step; a preempted row falls back to 0
        by_turn = rows.by_turn()
        by_turn = by_turn[rows.length[by_turn] < rows.max_len[by_turn]]
        if rows.is_held[by_turn].any():  # what may follow a token that is in flight is not known
            is_blind = rows.is_held[by_turn] & (rows.tokens[by_turn, rows.length[by_turn] - 1] == NOT_KNOWN)
            by_turn = by_turn[~is_blind]

        decoding = by_turn[rows.length[by_turn] - rows.computed[by_turn] == 1]
        while not pages.extend(decoding, rows.length[decoding]):
            if self._flights:  # what must give way is being computed: first things first
                return None
            self._preempt_last(counts)
            decoding = decoding[rows.used[decoding]]
        counts[decoding] = 1
        self._budget.begin(len(decoding))

        while True:
            for row in rows.prompts(counts).tolist():
                if rows.used[row] and not self._grow_prefill(row, counts):
                    return None
            self._admit(counts)
            if not self._budget.offer_rest():
                break

        chosen = order(rows, counts)
        return self._launch(chosen, counts[chosen]) if len(chosen) else None

    def complete(self, sampled: Sampled) -> None:
        """Take in what the engine made of the oldest step in flight."""
        rows, batch = self._rows, self._flights.popleft()
        held = batch.rows.astype(np.intp)
        rows.flights[held] -= 1
        ends = batch.starts + batch.counts
        who = held[batch.sampled]
        rows.tokens[who, ends[batch.sampled]] = sampled.tokens
        rows.spoiled[who[sampled.failed]] = True

        for row, part in by_row(batch, sampled.scores) if sampled.scores else ():
            if (scores := rows.of(row).scores) is not None:
                scores.add(part)
        live = ~rows.ended[who]
        if live.all():
            self._take_in(who, ends[batch.sampled], sampled.tokens, sampled.failed)
        else:  # the rest ended while this step was in flight
            self._take_in(who[live], ends[batch.sampled][live], sampled.tokens[live], sampled.failed[live])
        for at, logprobs in sampled.logprobs.items():
            if live[at] and not sampled.failed[at]:
                self.results.report(int(rows.uid[who[at]]), logprobs)

        for at in np.flatnonzero(batch.counts > 1).tolist():
            row = int(held[at])
            if not rows.ended[row]:  # let others reuse this chunk while the request goes on
                self._pages.share(row, rows.tokens[row, : ends[at]])
        self._let_go(held[rows.ended[held]])

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
        flights = np.zeros_like(self._rows.flights)
        for batch in self._flights:
            flights[batch.rows] += 1
        if (flights != self._rows.flights).any() or (self._rows.ended & ~flights.astype(bool) & self._rows.used).any():
            raise RuntimeError("a row does not know which steps hold it")
        if not self.has_work and (self._rows.used.any() or self._pages.available != self._pages.num_pages):
            raise RuntimeError("nothing is to be done, but rows or pages are held")

    # ---- inside plan

    def _grow_prefill(self, row: int, counts: NDArray[np.int32]) -> bool:
        """Give an admitted row its next tokens, taking pages from later rows; False: not while a step is in flight."""
        rows, past = self._rows, int(self._rows.computed[row] + counts[row])
        ask = Ask(past, int(rows.length[row]) - past, int(rows.priority[row]))
        count = self._budget.affordable(ask)
        end = rows.computed[[row]] + counts[row] + count
        while not self._pages.extend(np.array([row]), end):
            if int(rows.by_turn()[-1]) == row:
                return True  # nobody comes later: it waits a step
            if self._flights:
                return False
            self._preempt_last(counts)
        self._budget.pay(ask, count)
        counts[row] += count
        return True

    def _admit(self, counts: NDArray[np.int32]) -> None:
        """Move requests from the queue into rows while their whole prompts find pages."""
        rows = self._rows
        stuck: list[Request] = []
        for request in self._waiting.first(MOST_LOOKED_AT + len(rows.used)):
            if self._budget.left <= 0 or (row := rows.free_row()) is None:
                return
            if not self._budget.affordable(Ask(0, len(request.ids), request.priority)):
                continue
            if request.held is not None and not self._can_start(request, request.held):
                continue
            if self._admit_one(row, request, counts):
                for earlier in stuck:
                    earlier.overtaken += 1
            else:
                stuck.append(request)
            if len(stuck) == MOST_LOOKED_AT or any(earlier.overtaken >= MOST_OVERTAKING for earlier in stuck):
                return

    def _can_start(self, request: Request, held: Held) -> bool:
        """Whether its grammar is compiled; one that failed ends the request."""
        if not held.is_ready:
            return False
        if held.error is not None:
            self._waiting.remove(request)
            self._tell_end(request, Finish.ERROR, held.error)
            return False
        return True

    def _admit_one(self, row: int, request: Request, counts: NDArray[np.int32]) -> bool:
        rows, pages = self._rows, self._pages
        found = pages.open(row, request.findable, request.salt)
        # What running rows are sure to need: the rest of their prompts, and a page each to go on.
        running = np.flatnonzero(rows.used & ~rows.ended)
        promised = np.maximum(-(-rows.length[running] // pages.page_size) - pages.held[running], 0) + 1
        if pages.pages_for(len(request.ids) + 1) - int(pages.held[row]) + int(promised.sum()) > pages.available:
            pages.close(row, request.ids[:0])
            return False
        self._waiting.remove(request)
        request.overtaken = 0
        rows.put(row, request, found)
        self._row_of[request.uid] = row
        if request.cached_tokens < 0:
            request.cached_tokens = found
            self._queried += len(request.ids)
            self._hits += found
        ask = Ask(found, len(request.ids) - found, request.priority)
        counts[row] = self._budget.affordable(ask)
        self._budget.pay(ask, int(counts[row]))
        fits = pages.extend(np.array([row]), rows.computed[[row]] + counts[row])
        assert fits, "the check above covers the first chunk"
        return True

    def _preempt_last(self, counts: NDArray[np.int32]) -> None:
        """Send the last row in turn back to the queue. Its pages stay findable until others need them."""
        row = int(self._rows.by_turn()[-1])
        self._waiting.put(self._leave(row))
        self._preemptions += 1
        self._budget.left += int(counts[row])
        counts[row] = 0

    def _launch(self, chosen: Index, counts: NDArray[np.int32]) -> Batch:
        """Put the step together, and move its rows on as if it were done."""
        rows = self._rows
        soiled, self._soiled = self._soiled, []
        scrub = np.concatenate(soiled) if soiled else np.empty(0, np.int32)
        batch = assemble(rows, self._pages, chosen, counts, scrub)
        rows.computed[chosen] += counts
        rows.flights[chosen] += 1
        sampled = chosen[batch.sampled]
        rows.tokens[sampled, rows.length[sampled]] = NOT_KNOWN
        rows.length[sampled] += 1
        self._flights.append(batch)
        self._steps += 1
        return batch

    # ---- ends

    def _take_in(self, who: Index, at: NDArray[np.int32], tokens: NDArray[np.int32], failed: NDArray[np.bool_]) -> None:
        """Report the new tokens of rows that have not ended, and end those that they end."""
        rows = self._rows
        finish = np.where(at + 1 >= rows.max_len[who], LENGTH, RUNNING)
        may_end = at >= rows.min_len[who]
        finish[may_end & rows.stops_at_eos[who] & self._is_eos[tokens]] = Finish.STOP
        for i in np.flatnonzero(may_end & rows.has_stop_ids[who]).tolist():
            if int(tokens[i]) in rows.of(int(who[i])).sampling.stop_token_ids:
                finish[i] = Finish.STOP
        over = self._follow_grammars(who, tokens, finish)
        finish[failed] = Finish.ERROR
        for row in who[~rows.opened[who]].tolist():
            self._open(rows.of(row))
            rows.opened[row] = True
        self.results.add(rows.uid[who], np.where(failed | rows.is_mute[who], -1, tokens), finish)
        for row in who[finish != RUNNING].tolist():
            uid = self._retire(row).uid
            del self._known[uid]
            if rows.spoiled[row]:
                self.results.errors[uid] = (
                    "the model gave no usable probabilities for this request (NaN or infinity); "
                    "try other input, or --dtype float32"
                )
            elif (held := rows.of(row).held) is not None and held.error is not None:
                self.results.errors[uid] = held.error
        for i in over[~failed[over]].tolist():
            self._tell_end(self._retire(int(who[i])), Finish.STOP)

    def _follow_grammars(self, who: Index, tokens: NDArray[np.int32], finish: NDArray[np.uint8]) -> Index:
        """Tell the grammars of their answers' new tokens. Returns indices of those that are whole, but for the end."""
        over = []
        for i in np.flatnonzero(self._rows.is_held[who] & ~self._rows.is_mute[who]).tolist():
            token = int(tokens[i])
            held = self._rows.of(int(who[i])).held
            assert held is not None, "its column says so"
            held.accept(token)
            if held.error is not None:
                finish[i] = Finish.ERROR
            elif held.is_over:
                is_end = self._is_eos[token]
                finish[i] = Finish.STOP if is_end else RUNNING  # its text is shown before the end
                if not is_end:
                    over.append(i)
        return np.array(over, np.intp)

    def _retire(self, row: int) -> Request:
        """Its terminal result comes now: from here on the row only waits for the steps that hold it."""
        request = self._rows.of(row)
        request.opened = bool(self._rows.opened[row])
        self._rows.ended[row] = True
        del self._row_of[request.uid]
        return request

    def _let_go(self, ended: Index) -> None:
        """Empty those of the rows `ended` that no step in flight holds."""
        for row in ended[self._rows.flights[ended] == 0].tolist():
            self._leave(row)

    def _leave(self, row: int) -> Request:
        """Take a request out of its row and give its pages back, once."""
        rows = self._rows
        if rows.spoiled[row]:
            self._soiled.append(self._pages.table[row, : self._pages.held[row]].copy())
        request = rows.take(row)
        self._pages.close(row, request.ids[: 0 if rows.spoiled[row] else rows.computed[row]])
        self._row_of.pop(request.uid, None)
        return request

    def _open(self, request: Request) -> None:
        request.opened = True
        self.results.opened.append(request.opening())

    def _tell_end(self, request: Request, finish: Finish, error: str | None = None) -> None:
        """The terminal result of a request, without a token."""
        if not request.opened:
            self._open(request)
        self.results.end(request.uid, finish, error)
        del self._known[request.uid]
