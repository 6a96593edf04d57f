"""The messages between the processes of one server: closed msgspec schemas, arrays as little-endian bytes.

    front end ──Tokenize──► tokenizer ──Tokenized──► front end        (text to ids; the front end validates the length)
    front end ──Detokenize──► tokenizer ──Detokenized──► front end    (whole prompts back to text)
    front end ──Generate | Abort | Flush──► scheduler rank 0          (one ordered pipe: an abort cannot overtake)
    scheduler rank 0 ──Step──► detokenizer ──Texts──► front end       (one message of arrays per step)

What the detokenizer must know of a request travels with its first token (`Step.opened`), so no message can come
too early. A request is named by `uid`, a number that the front end never reuses.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec


class Finish(IntEnum):
    """How a request stands after a step. Everything but RUNNING is terminal, and comes exactly once per request."""

    RUNNING = 0
    STOP = 1  # an end token, or a stop string
    LENGTH = 2  # max_tokens, or the end of the context
    ABORT = 3  # the client went away, or the front end took it back
    ERROR = 4  # this request failed; others go on


class Thinking(IntEnum):
    """Whether an answer begins with reasoning."""

    NONE = 0  # no, or nobody asks
    MAY = 1  # it does if its first word is `<think>`
    OPEN = 2  # it does: the prompt has opened it, or the model always does


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True, forbid_unknown_fields=True):
    """Base of all messages: tagged by class name, encoded as an array."""


class SamplingParams(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How tokens are chosen; already validated, bounded and finite when the scheduler sees it."""

    max_tokens: int  # 0: the prompt is computed, nothing is said
    temperature: float = 1.0  # 0: greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: off
    min_p: float = 0.0  # 0: off
    seed: int | None = None  # None: the engine draws one
    ignore_eos: bool = False
    stop_token_ids: tuple[int, ...] = ()
    presence_penalty: float = 0.0  # taken from the logit of every token that the answer holds
    frequency_penalty: float = 0.0  # the same, times how often it holds it
    repetition_penalty: float = 1.0  # divides (a negative logit: multiplies) what prompt or answer hold
    logit_bias: dict[int, float] = {}  # token id -> added to its logit
    logprobs: int | None = None  # None: none; n: the chosen token's, and the n likeliest tokens'
    min_tokens: int = 0  # before so many, no end token and none of `stop_token_ids` is chosen
    prompt_logprobs: int | None = None  # None: none; n: each prompt token's but the first's, and the n likeliest there
    grammar: str = ""  # what the answer is held to, as llguidance reads it: Lark's language, or JSON; empty: nothing


class DecodeParams(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the detokenizer must know: stop strings and what of the text is shown."""

    stop: tuple[str, ...] = ()
    skip_special_tokens: bool = True
    include_stop: bool = False
    min_tokens: int = 0  # stop strings are looked for in what comes after so many tokens
    tells_all: bool = False  # logprobs also of tokens that are no text: the end token, hidden special ones
    with_ids: bool = False  # the answer's token ids go with its text
    shows_marks: bool = False  # the marks of reasoning and calls are text, also where they are special tokens
    thinking: Thinking = Thinking.NONE  # whose tokens are counted in `Text.reasoning_tokens`


# ---- front end <-> tokenizer


class Tokenize(Message, frozen=True):
    """Turn a chat (`messages`, rendered by the model's template) or a plain `text` into token ids."""

    uid: int
    text: str | None = None
    messages: list[dict[str, Any]] | None = None
    template_args: dict[str, Any] = {}
    add_special_tokens: bool = True  # for `text`; a template writes its own
    with_pieces: bool = False


class Tokenized(Message, frozen=True):
    """The ids (int32 bytes), or the sentence that says why there are none."""

    uid: int
    ids: bytes = b""
    error: str | None = None
    pieces: tuple[str, ...] = ()  # the vocabulary's names of the ids, if they were asked for
    thinks: bool | None = None  # a chat: its rendering ends within reasoning, just behind it, or tells nothing of it


class Detokenize(Message, frozen=True):
    """Turn the `ids` (int32 bytes) of a prompt into its text."""

    uid: int
    ids: bytes
    skip_special_tokens: bool = False


class Detokenized(Message, frozen=True):
    """The text, or the sentence that says why there is none."""

    uid: int
    text: str = ""
    error: str | None = None


# ---- front end -> scheduler rank 0


class Generate(Message, frozen=True):
    """Continue the prompt `ids` (int32 bytes, not empty, prompt + max_tokens within the context)."""

    uid: int
    ids: bytes
    sampling: SamplingParams
    decode: DecodeParams
    priority: int = 0  # the higher runs first; equal ones in order of arrival
    cache_salt: str = ""  # only requests of one salt find each other's prefixes


class Abort(Message, frozen=True):
    """End a request early. Its terminal message (ABORT, or whatever came first) still follows; unknown: ignored."""

    uid: int


class Flush(Message, frozen=True):
    """Empty the prefix cache, but for what running requests hold."""


# ---- scheduler rank 0 -> detokenizer -> front end


class PromptLogprobs(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How likely a prompt's tokens were: `ids` int32 [n], and of all but the first `logprobs` float32, `ranks` int32
    (1: the likeliest), `top_tokens` int32 [n - 1, k] and `top` float32 [n - 1, k], the likeliest first."""

    ids: bytes
    logprobs: bytes
    ranks: bytes
    top_tokens: bytes
    top: bytes


class Opened(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A request whose first result is in this step."""

    uid: int
    cached_tokens: int  # prompt tokens found in the prefix cache
    decode: DecodeParams
    prompt: PromptLogprobs | None = None  # if it was asked for


class Stats(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The scheduler's gauges and its totals since start."""

    running: int = 0
    waiting: int = 0
    kv_used_tokens: int = 0
    kv_cached_tokens: int = 0  # held by the prefix cache, free on demand
    kv_total_tokens: int = 0
    steps_total: int = 0
    prefix_query_tokens_total: int = 0
    prefix_hit_tokens_total: int = 0
    preemptions_total: int = 0


class Logprobs(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Natural logarithms of probabilities at one position, before temperature and truncation, after penalties."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # token id and logprob, the likeliest first


class Step(Message, frozen=True):
    """The results of one step, row by row: equal-length arrays.

    `uids` int64, `tokens` int32 (-1: no token in this row, as for an abort), `finish` uint8 (`Finish`).
    `errors` gives the sentence for each row that ended in ERROR. Sent when there are rows, and with only `stats` at
    least once a second while the scheduler lives.
    """

    uids: bytes = b""
    tokens: bytes = b""
    finish: bytes = b""
    opened: tuple[Opened, ...] = ()
    errors: dict[int, str] = {}
    stats: Stats | None = None
    logprobs: dict[int, tuple[Logprobs, ...]] = {}  # uid -> one per token of its rows here, for those that asked


class Scored(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A token of an answer's text with its `Logprobs`, in words: bytes, because a token may be half a character."""

    spelling: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]
    start: int  # where its text begins, in characters of the answer


class PromptToken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A token of the prompt in words, with its `PromptLogprobs`; the first has none (rank 0)."""

    token: int
    spelling: bytes
    start: int  # where its text begins, in characters of the prompt's
    logprob: float | None = None
    rank: int = 0
    top: tuple[tuple[int, bytes, float], ...] = ()  # id, spelling, logprob


class Text(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """New text of one request. `stopped_by` is the stop string that ended it; the scheduler is told by an Abort."""

    uid: int
    text: str
    num_tokens: int  # tokens of the answer so far
    cached_tokens: int
    finish: Finish = Finish.RUNNING
    stopped_by: str | None = None
    error: str | None = None
    tokens: tuple[Scored, ...] = ()  # those whose text begins to show here, if logprobs were asked for
    ids: bytes = b""  # int32, since the last text, if they were asked for
    prompt: tuple[PromptToken, ...] = ()  # with the first text, if it was asked for
    reasoning_tokens: int = 0  # of the answer so far, up to the one that ended the reasoning


class Texts(Message, frozen=True):
    """What one step means in words."""

    items: tuple[Text, ...] = ()
    stats: Stats | None = None


TO_TOKENIZER = Tokenize | Detokenize
TO_SCHEDULER = Generate | Abort | Flush
TO_DETOKENIZER = Step
TO_FRONTEND = Tokenized | Detokenized | Texts
