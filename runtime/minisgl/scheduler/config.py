"""The limits of a scheduler, and what they mean for a request."""

from __future__ import annotations

from dataclasses import dataclass

from minisgl.messages import SamplingParams
from minisgl.scheduler.rows import Request


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
    even_past: int | None = None  # as `scheduler.budget` has it

    @property
    def num_rows(self) -> int:
        """More rows than tokens in a step could never all decode."""
        return min(self.max_running, self.max_step_tokens)

    def ends_of(self, sampling: SamplingParams) -> tuple[int, ...]:
        """The tokens that end a request."""
        ends = {*sampling.stop_token_ids, *(() if sampling.ignore_eos else self.eos_token_ids)}
        return tuple(token for token in sorted(ends) if token < self.vocab_size)

    def why_impossible(self, request: Request) -> str | None:
        """The sentence for a request that can never run."""
        if not len(request.ids):
            return "the prompt is empty; send at least one token"
        if request.sampling.max_tokens < 0:
            return f"max_tokens is {request.sampling.max_tokens}; ask for at least 0"
        if request.max_len > self.context_length:
            return (
                f"prompt ({len(request.ids)} tokens) plus max_tokens ({request.sampling.max_tokens}) is more than the "
                f"context of {self.context_length} tokens; shorten one of them"
            )
        if request.ids.min() < 0 or request.ids.max() >= self.vocab_size:
            return f"the prompt holds a token outside the vocabulary of {self.vocab_size}"
        return None
