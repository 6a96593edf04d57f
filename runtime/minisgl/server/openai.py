"""The OpenAI requests that are served: fields, bounds, and which known fields do not work yet.

Unknown extra fields are accepted, because benchmark clients send them. A field that OpenAI knows and we do not
serve is an error unless it has the value that changes nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from minisgl.errors import RequestError
from minisgl.messages import DecodeParams, SamplingParams
from minisgl.server import faults

INT32_MAX, INT64_MAX = 2**31 - 1, 2**63 - 1
MOST_STOPS = 16
LONGEST_STOP = 1024  # characters; every new piece of text is searched for each

MOST_CHOICES = 128  # of one request, as OpenAI; each is a request of its own in the scheduler
MOST_LOGPROBS = 20
MOST_BIASES = 300  # as OpenAI; each is carried to every rank's step
HIGHEST_PRIORITY = 1000
LONGEST_SALT = 256

StopString = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]
TokenId = Annotated[int, Field(ge=0, le=INT32_MAX)]
BiasedId = Annotated[int, Field(ge=0, le=INT32_MAX, strict=False)]  # JSON's keys are texts
Penalty = Annotated[float, Field(ge=-2, le=2)]

# Field -> the values that mean "not used". None is always one of them.
NOT_SERVED: dict[str, tuple[Any, ...]] = {
    "prompt_logprobs": (),
    "suffix": ("",),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "web_search_options": (),
    "store": (False,),
    "continue_final_message": (False,),
    "chat_template": (),
    "documents": ([],),
}


class Body(BaseModel):
    """Base: JSON types are taken as they are (no "1" for 1); what we do not know passes."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)


class StreamOptions(Body):
    """`include_usage`: one more chunk with the token counts."""

    include_usage: bool = False


class Sampling(Body):
    """What both endpoints share."""

    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1, le=INT32_MAX)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=INT32_MAX)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=INT32_MAX)] | None = None  # -1 and 0: off
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-INT64_MAX - 1, le=INT64_MAX)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    best_of: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=2)] | None = None  # a logit divided by less may overflow
    logit_bias: (
        Annotated[dict[BiasedId, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=MOST_BIASES)] | None
    ) = None
    priority: Annotated[int, Field(ge=-HIGHEST_PRIORITY, le=HIGHEST_PRIORITY)] | None = None  # the higher runs first
    cache_salt: Annotated[str, Field(min_length=1, max_length=LONGEST_SALT)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=MOST_STOPS)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=128)] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def token_limit(self) -> int | None:
        return self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        """None: no logprobs; else of how many of the likeliest tokens beside the chosen one."""
        raise NotImplementedError

    @model_validator(mode="after")
    def keeps_all_choices(self) -> Self:
        if self.best_of is not None and self.best_of != self.num_choices:
            raise RequestError(
                f"best_of: {self.best_of} is not n ({self.num_choices}); a choice among more than n is not served",
                code="unsupported_parameter",
                param="best_of",
            )
        return self

    @property
    def num_choices(self) -> int:
        return self.n or 1

    def sampling(self, max_tokens: int, nth: int = 0) -> SamplingParams:
        """For the `nth` choice: with a seed, each has its own, and the first is the answer to n=1."""
        if (self.min_tokens or 0) > max_tokens:
            message = f"min_tokens: {self.min_tokens} is more than the {max_tokens} tokens that the answer may have"
            raise RequestError(message, code="invalid_value", param="min_tokens")
        seed = None if self.seed is None else (self.seed + nth + 2**63) % 2**64 - 2**63
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(0, self.top_k or 0),
            min_p=self.min_p or 0.0,
            seed=seed,
            ignore_eos=bool(self.ignore_eos),
            stop_token_ids=tuple(self.stop_token_ids or ()),
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repetition_penalty=1.0 if self.repetition_penalty is None else self.repetition_penalty,
            logit_bias=dict(self.logit_bias or {}),
            logprobs=self.num_logprobs,
            min_tokens=self.min_tokens or 0,
        )

    def decode(self) -> DecodeParams:
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return DecodeParams(
            stop=tuple(stops),
            skip_special_tokens=self.skip_special_tokens is not False,
            include_stop=bool(self.include_stop_str_in_output),
            min_tokens=self.min_tokens or 0,
        )


class TextPart(Body):
    """One part of a message's content."""

    type: str
    text: str | None = None

    @field_validator("type")
    @classmethod
    def is_text(cls, kind: str) -> str:
        if kind != "text":
            raise ValueError(f"content parts of type {kind!r} are not served; send text")
        return kind


class ChatMessage(Body):
    """One turn. What a template may also read (`name`, `tool_calls`, …) is passed on untouched."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None

    def for_template(self) -> dict[str, Any]:
        """As templates expect it: one text; `developer` is the newer name of `system`, which no template knows."""
        content = self.content
        text = content if isinstance(content, str) else "".join(part.text or "" for part in content or ())
        role = "system" if self.role == "developer" else self.role
        return {**(self.model_extra or {}), "role": role, "content": text}


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=INT32_MAX)] | None = None
    # Switches only (`enable_thinking`): text from a client would be text in a place the model's author wrote.
    chat_template_kwargs: dict[str, bool] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None

    @model_validator(mode="after")
    def has_logprobs_to_rank(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise RequestError("top_logprobs needs logprobs: true", code="invalid_value", param="top_logprobs")
        return self

    @property
    def num_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


class CompletionRequest(Sampling):
    """POST /v1/completions. `prompt`: a text or token ids, or a list of either."""

    prompt: str | list[str] | list[TokenId] | list[list[TokenId]]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None

    @model_validator(mode="after")
    def echoes_text_only(self) -> Self:
        if self.echo and self.logprobs is not None:
            raise RequestError(
                "echo with logprobs is not served: there are none of the prompt; leave one of them out",
                code="unsupported_parameter",
                param="echo",
            )
        return self

    @property
    def num_logprobs(self) -> int | None:
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        if not prompt:
            raise RequestError("prompt: must not be empty", code="invalid_value", param="prompt")
        return [prompt] if isinstance(prompt[0], int) else prompt  # type: ignore[return-value]


Request = TypeVar("Request", bound=Body)


def read(kind: type[Request], fields: Any) -> Request:
    """Validate a decoded body. Raises RequestError that names the field, the value and the mend."""
    if not isinstance(fields, dict):
        raise RequestError(f"The body is a JSON {type(fields).__name__}; send an object.", code="invalid_value")
    for name, unused in NOT_SERVED.items():
        value = fields.get(name)
        if value is not None and not any(_same(value, other) for other in unused):
            raise RequestError(f"{name} is not served yet; leave it out", code="unsupported_parameter", param=name)
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise faults.of_validation(error) from None


def _same(value: Any, other: Any) -> bool:
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)
