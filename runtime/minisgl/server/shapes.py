"""The shapes of answers, for openapi.json: what a client may rely on. Nothing is built from them; a test holds every
answer against them (`tests/minisgl/server/test_openapi.py`).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

Reason = Literal["stop", "length", "abort", "tool_calls"]


class ErrorFacts(BaseModel):
    """What went wrong; `param` names the field of the request, `code` is stable for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """Every error, whatever the route."""

    error: ErrorFacts


class PromptDetails(BaseModel):
    """Of the prompt tokens."""

    cached_tokens: int


class AnswerDetails(BaseModel):
    """Of the completion tokens."""

    reasoning_tokens: int


class Event(BaseModel):
    """One event of a stream: `data` is a chunk's JSON, an error's, or `[DONE]`, which ends a stream that went well."""

    data: str


class Document(BaseModel):
    """An OpenAPI description."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
    components: dict[str, Any]


class Usage(BaseModel):
    """The tokens that were really used."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: AnswerDetails


class Likely(BaseModel):
    """A token; `bytes` are its UTF-8, also where it is half a character."""

    token: str
    logprob: float
    bytes: list[int]


class Told(Likely):
    """A token of the answer, and the likeliest ones at its place."""

    top_logprobs: list[Likely]


class ChatLogprobs(BaseModel):
    """One entry per token that is shown."""

    content: list[Told]
    refusal: None


class AnswerMessage(BaseModel):
    """What the model says."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ChatChoice(BaseModel):
    """One answer; `stop_reason` is the stop string that ended it."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Reason
    stop_reason: str | None
    token_ids: list[int] | None = None


class RankedToken(BaseModel):
    """vLLM's entry of one token id."""

    logprob: float
    rank: int
    decoded_token: str


PromptLogprobs = list[dict[str, RankedToken] | None]


class ChatCompletion(BaseModel):
    """The answer to a chat, whole; a stream has `chat.completion.chunk` objects with a `delta` for the message."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    prompt_logprobs: PromptLogprobs | None = None
    prompt_token_ids: list[int] | None = None


class CompletionLogprobs(BaseModel):
    """Columns of equal length; of a prompt's first token nothing is known."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One answer."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Reason
    stop_reason: str | None
    token_ids: list[int] | None = None
    prompt_logprobs: PromptLogprobs | None = None
    prompt_token_ids: list[int] | None = None


class Completion(BaseModel):
    """The answer to prompts, whole; a stream has the same objects with pieces of text."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class Generated(BaseModel):
    """SGLang's answer; of a list of prompts, or of several choices, there is a list of them."""

    text: str
    output_ids: list[int]
    meta_info: dict[str, Any]


class Tokens(BaseModel):
    """What the tokenizer makes of a text."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Detokenized(BaseModel):
    """The text of token ids."""

    prompt: str


class Aborted(BaseModel):
    """How many generations were told to end."""

    aborted: int


class Status(BaseModel):
    """How it stands; what else there is depends on the state."""

    status: str


class ModelCard(BaseModel):
    """The served model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    max_model_len: int | None


class ModelList(BaseModel):
    """The served model, as a list of one."""

    object: Literal["list"]
    data: list[ModelCard]


class Version(BaseModel):
    """Of the runtime."""

    version: str
