"""Answers to figures: how long, how much, what failed. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from minisgl.bench.answer import Answer
from minisgl.bench.load import Load

PERCENTILES = (50, 90, 99)


def rows(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """The table: milliseconds of the answers that came whole. The gaps of all are one distribution."""
    whole = [answer for answer in answers if not answer.failure]
    measured: dict[str, list[float]] = {
        "first token": [answer.times[0] - answer.due_at for answer in whole],
        "between events": [gap for answer in whole for gap in np.diff(answer.times)],
        "per token after the first": [
            (answer.times[-1] - answer.times[0]) / (answer.num_tokens - 1) for answer in whole if answer.num_tokens > 1
        ],
        "whole answer": [answer.ended_at - answer.due_at for answer in whole],
    }
    return [{"ms": name, **_spread(seconds)} for name, seconds in measured.items()]


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    if not len(seconds):
        return dict.fromkeys(("mean", *(f"p{percent}" for percent in PERCENTILES)), 0.0)
    ms = np.asarray(seconds) * 1000
    spread = {"mean": ms.mean()} | {f"p{percent}": np.percentile(ms, percent) for percent in PERCENTILES}
    return {name: round(float(value), 2) for name, value in spread.items()}


def totals(answers: Sequence[Answer], seconds: float, client_seconds: float) -> dict[str, Any]:
    """Rates over the whole run. Tokens of answers that failed count nowhere but in the client's work."""
    whole = [answer for answer in answers if not answer.failure]
    uncounted = sum(answer.usage is None for answer in whole)
    made = sum(answer.num_tokens for answer in whole)
    read = sum(answer.usage.prompt_tokens for answer in whole if answer.usage is not None)
    events = sum(len(answer.times) for answer in answers)
    return {
        "requests": len(whole),
        "failed": len(answers) - len(whole),
        "errors": dict(Counter(answer.failure for answer in answers if answer.failure).most_common()),
        "seconds": round(seconds, 3),
        "requests_per_s": round(len(whole) / seconds, 3),
        "input_tokens": read,
        "output_tokens": made,
        "output_tokens_per_s": round(made / seconds, 2),
        "answers_without_usage": uncounted,
        "events_per_token": round(sum(len(answer.times) for answer in whole) / made, 3) if made else 0.0,
        "client_us_per_event": round(client_seconds / events * 1e6, 1) if events else 0.0,
        "client_share_of_a_core": round(client_seconds / seconds, 4),
    }


def notes(result: dict[str, Any], load: Load) -> list[str]:
    """Sentences under the table."""
    said = [
        f"{result['requests']} requests in {result['seconds']:,.1f} s: {result['requests_per_s']:,.2f} requests/s, "
        f"{result['output_tokens_per_s']:,.1f} output tokens/s",
        f"{result['input_tokens']:,} tokens in, {result['output_tokens']:,} out; {load.sentence()}",
    ]
    if uncounted := result["answers_without_usage"]:
        said.append(f"{uncounted} answers came without usage: their events are counted as tokens, their prompts not")
    said.append(
        f"the client took {result['client_share_of_a_core']:.1%} of a core, "
        f"{result['client_us_per_event']:,.0f} us an event"
    )
    said += [f"failed: {count} x {kind}" for kind, count in result["errors"].items()]
    return said
