"""Rows to a `Batch`: arrays are picked out of the table, without a look at any single request unless it asks for more.

Pure: decides nothing, changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minisgl.engine.batch import Batch, Extras, Sampling, Scoring
from minisgl.scheduler.pages import PageTable
from minisgl.scheduler.rows import Index, RowTable

MOST_SORTED = 192  # rows in a step that begin with the longest, so that attention ends together; more even out
WITHHELD = -1e9  # added to a logit, it leaves no probability; -infinity would make a row of NaN where all is withheld


def order(rows: RowTable, counts: NDArray[np.int32]) -> Index:
    """The rows that have tokens in a step, of `counts` for each: those with one token first, the longest in front."""
    chosen = np.flatnonzero(counts)
    if len(chosen) <= MOST_SORTED:
        chosen = chosen[np.argsort(-rows.length[chosen], kind="stable")]
    if len(chosen) and int(counts.max()) > 1:
        chosen = chosen[np.argsort(counts[chosen] > 1, kind="stable")]
    return chosen


def assemble(
    rows: RowTable, pages: PageTable, chosen: Index, counts: NDArray[np.int32], scrub: NDArray[np.int32]
) -> Batch:
    """The step that computes the next `counts` tokens of the rows `chosen`, those with one token first."""
    starts = rows.computed[chosen]
    ends = starts + counts
    if len(chosen) and int(counts[-1]) == 1:  # all of them: one token each
        tokens = rows.tokens[chosen, starts]
    else:
        owner = np.repeat(chosen, counts)
        nth = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        tokens = rows.tokens[owner, rows.computed[owner] + nth]
    sampled = np.flatnonzero(ends == rows.length[chosen])
    scored, scoring = _scoring(rows, chosen, starts, counts)
    return Batch(
        rows=chosen.astype(np.int32),
        tokens=tokens,
        starts=starts,
        counts=counts,
        pages=pages.table[chosen, : pages.pages_for(int(ends.max()))],
        sampled=sampled.astype(np.int32),
        scrub=scrub,
        sampling=_sampling(rows, chosen[sampled], ends[sampled]),
        scored=scored,
        scoring=scoring,
    )


def _scoring(
    rows: RowTable, chosen: Index, starts: NDArray[np.int32], counts: NDArray[np.int32]
) -> tuple[NDArray[np.int32], Scoring | None]:
    """Which tokens of the step have to say how likely the prompt's next one is."""
    indices, following, num_top = [np.empty(0, np.int32)], [np.empty(0, np.int64)], 0
    for at in np.flatnonzero(rows.has_scores[chosen]).tolist():
        row, start = int(chosen[at]), int(starts[at])
        scores = rows.of(row).scores
        assert scores is not None, "its column says so"
        if wanted := scores.wanted(start, start + int(counts[at])):
            before = int(counts[:at].sum()) - start
            indices.append(np.arange(before + wanted.start, before + wanted.stop, dtype=np.int32))
            following.append(rows.tokens[row, wanted.start + 1 : wanted.stop + 1].astype(np.int64))
            num_top = max(num_top, scores.num_top)
    scored = np.concatenate(indices)
    return scored, Scoring(np.concatenate(following), num_top) if len(scored) else None


def _sampling(rows: RowTable, who: Index, positions: NDArray[np.int32]) -> Sampling:
    return Sampling(
        temperature=rows.temperature[who],
        top_k=rows.top_k[who],
        top_p=rows.top_p[who],
        min_p=rows.min_p[who],
        seeds=rows.seed[who],
        positions=positions,
        extras=_extras(rows, who) if rows.has_extras[who].any() else None,
    )


def _extras(rows: RowTable, who: Index) -> Extras:
    """One look at each request that asks for more than the columns hold."""
    penalised, histories, biased, reported, held, masks = [], [], [], [], [], []
    for at in np.flatnonzero(rows.has_extras[who]).tolist():
        row = int(who[at])
        request = rows.of(row)
        asked = request.sampling
        if asked.presence_penalty or asked.frequency_penalty or asked.repetition_penalty != 1:
            history = rows.tokens[row, : rows.length[row]]
            values = asked.presence_penalty, asked.frequency_penalty, asked.repetition_penalty
            penalised.append((at, *values, request.prompt_len, len(history)))
            histories.append(history)
        biased += [(at, token, bias) for token, bias in asked.logit_bias.items()]
        if rows.length[row] < rows.min_len[row]:
            biased += [(at, token, WITHHELD) for token in request.withheld]
        if asked.logprobs is not None and not rows.is_mute[row]:
            reported.append((at, asked.logprobs))
        if request.held is not None:
            held.append((at,))
            masks.append(request.held.mask())

    def column(table: Sequence[tuple[float, ...]], index: int, kind: type[np.generic]) -> NDArray[Any]:
        return np.array([line[index] for line in table], kind)

    return Extras(
        penalised_at=column(penalised, 0, np.int64),
        presence=column(penalised, 1, np.float32),
        frequency=column(penalised, 2, np.float32),
        repetition=column(penalised, 3, np.float32),
        prompt_len=column(penalised, 4, np.int64),
        history_len=column(penalised, 5, np.int64),
        history=np.concatenate(histories).astype(np.int64) if histories else np.empty(0, np.int64),
        bias_at=column(biased, 0, np.int64),
        bias_token=column(biased, 1, np.int64),
        bias=column(biased, 2, np.float32),
        logprobs_at=column(reported, 0, np.int64),
        num_top=column(reported, 1, np.int64),
        held_at=column(held, 0, np.int64),
        masks=np.stack(masks) if masks else np.empty((0, 0), np.int32),
    )
