"""How likely a prompt's own tokens were: logits of its positions to log-probabilities, a slice of positions at a time.

input    a  b  c  d        the logits at `a` score `b`, the next token of the prompt; the last input scores nothing
scored   b  c  d           here, because what follows it is sampled

A slice bounds the memory: the logits of a whole chunk would be gigabytes where the vocabulary is large.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from minisgl.engine.batch import Scores, Scoring

SLICE = 32  # positions; 150,000 words in float32 make 20 MB of each of the few copies

Head = Callable[[torch.Tensor], torch.Tensor | None]  # vectors to logits, on rank 0; all ranks together


def score(hidden: torch.Tensor, head: Head, scoring: Scoring | None) -> Scores | None:
    """Score the vectors `hidden` [scored, size]; every rank calls this, rank 0 with `scoring` and gets the result."""
    parts = []
    for first in range(0, len(hidden), SLICE):
        logits = head(hidden[first : first + SLICE])
        if logits is not None and scoring is not None:
            following = torch.from_numpy(scoring.following[first : first + SLICE]).to(logits.device)
            parts.append(_score(logits, following, scoring.num_top))
    if not parts:
        return None
    return Scores(*(torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)))


def _score(logits: torch.Tensor, following: torch.Tensor, num_top: int) -> tuple[torch.Tensor, ...]:
    logprobs = logits.float().log_softmax(dim=-1)
    chosen = logprobs.gather(1, following.unsqueeze(1))
    rank = (logprobs > chosen).sum(dim=-1) + 1
    top, top_tokens = logprobs.topk(min(num_top, logprobs.shape[1]), dim=-1)
    return chosen.squeeze(1), rank.int(), top_tokens.int(), top
