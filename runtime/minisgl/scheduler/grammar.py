"""Answers that are held to a grammar: which tokens may come next. One door, and llguidance behind it.

    text of a grammar ──compile, on a thread──► Held ──mask──► the sampler chooses ──token──► Held ──mask──► …

The mask needs the token before it. So a held request sits out the step that is planned while its token is in flight,
and the others do not wait: with overlap, it gets a token in every second step unless all running requests are held.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MOST_KEPT = 64  # compiled grammars, for requests that send the same one again
MOST_STATES = 25_000  # of one answer's lexer, of up to 2 kB each: an answer that needs more ends with an error
BITS = 32  # tokens in a number of a mask
LONGEST_REASON = 300  # characters of llguidance's complaints, which may hold a whole grammar

log = logging.getLogger(__name__)


class Held(Protocol):
    """One answer's place in its grammar. It stays with its request through preemptions."""

    @property
    def is_ready(self) -> bool:
        """Whether it can be used, or has failed; compiling takes from milliseconds to a second."""

    @property
    def error(self) -> str | None:
        """Why the answer cannot go on; the mask means nothing then."""

    @property
    def is_over(self) -> bool:
        """Whether the answer is whole and nothing may follow."""

    def mask(self) -> NDArray[np.int32]:
        """One bit per token of the vocabulary, the lowest bit first: may it come next?"""

    def accept(self, token: int) -> None:
        """Take in the token that was chosen."""


Hold = Callable[[str], Held]  # a grammar's text


class Guidance:
    """Compiles grammars for one model. A grammar is Lark's language or JSON, as llguidance defines them."""

    def __init__(self, tokenizer: Path, vocab_size: int, ends: Sequence[int]) -> None:
        """`tokenizer`: the model's tokenizer.json. `vocab_size`: of the logits, which may be more than its words."""
        self._path, self.vocab_size, self._ends = tokenizer, vocab_size, list(ends)
        self._pool = ThreadPoolExecutor(1, "grammar")  # compiling lets other threads run
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()  # the latest ones, each at its beginning

    def __call__(self, grammar: str) -> Held:
        return _Held(self._pool.submit(self._compile, grammar), self)

    @cached_property
    def num_words(self) -> int:
        """Of tokenizer or logits, whichever has more: added words may have no logit, and logits may be padded."""
        words = Tokenizer.from_file(str(self._path)).get_vocab(with_added_tokens=True)
        return max(self.vocab_size, 1 + max(words.values()))

    def _compile(self, grammar: str) -> LLMatcher:
        from llguidance import LLMatcher, LLParserLimits, LLTokenizer

        if self._tokenizer is None:
            self._tokenizer = LLTokenizer(str(self._path), n_vocab=self.num_words, eos_token=self._ends)
        if (matcher := self._compiled.pop(grammar, None)) is None:
            limits = LLParserLimits(verbose_errors=False, max_lexer_states=MOST_STATES)
            matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)
            if not matcher.is_error():
                matcher.deep_copy().compute_bitmask()  # the first mask takes milliseconds: here they stall nobody
        self._compiled[grammar] = matcher
        if len(self._compiled) > MOST_KEPT:
            self._compiled.popitem(last=False)
        return matcher.deep_copy()


class _Held:
    def __init__(self, compiling: Future[LLMatcher], guidance: Guidance) -> None:
        self._compiling, self._guidance = compiling, guidance
        self._error: str | None = None

    @property
    def is_ready(self) -> bool:
        return self._compiling.done()

    @property
    def error(self) -> str | None:
        if self._error is None:
            if (failure := self._compiling.exception()) is not None:
                log.error("a grammar could not be compiled: %s", failure)
                self._error = f"this answer cannot be held to its grammar: {str(failure)[:LONGEST_REASON]}"
            elif self._matcher.is_error():
                reason = self._matcher.get_error().partition("\n")[0][:LONGEST_REASON]
                self._error = f"this answer cannot be held to its grammar any further: {reason}"
        return self._error

    @property
    def is_over(self) -> bool:
        return self._matcher.is_stopped()

    @property
    def _matcher(self) -> LLMatcher:
        return self._compiling.result()

    def mask(self) -> NDArray[np.int32]:
        whole = np.zeros(-(-self._guidance.num_words // BITS), np.int32)
        self._matcher.unsafe_compute_mask_ptr(whole.ctypes.data, whole.nbytes)
        mask = whole[: -(-self._guidance.vocab_size // BITS)]
        if not mask.any():  # an error: the row is sampled all the same, and then ended
            mask[:] = -1
        return mask

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)
