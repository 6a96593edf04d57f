"""The OpenAI requests that are served: fields, bounds, and which known fields do not work yet.

Unknown extra fields are accepted, because benchmark clients send them. A field that OpenAI knows and we do not
serve is an error unless it has the value that changes nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from minisgl.errors import RequestError
from minisgl.messages import DecodeParams, SamplingParams
from minisgl.server import faults
from minisgl.server.structured import ResponseFormat, StructuredOutputs, TextFormat, checked
from minisgl.server.tools import MOST_TOOLS, Tool, ToolCall, ToolChoice, check_tools

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
RequestId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
LONGEST_NOTE, MOST_NOTES = 512, 16  # as OpenAI
NoteKey = Annotated[str, Field(max_length=64)]
Note = Annotated[str, Field(max_length=LONGEST_NOTE)]

# Field -> the values that mean "not used". None is always one of them.
NOT_SERVED: dict[str, tuple[Any, ...]] = {
    "suffix": ("",),
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
    # Other servers' spellings of `structured_outputs`.
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "json_schema": (),
    "regex": (),
    "ebnf": (),
}


class Body(BaseModel):
    """Base: JSON types are taken as they are (no "1" for 1); what we do not know passes."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)


class Named(Body):
    """The client's own name for a request, for its answer's id, X-Request-Id and /abort_request: two spellings."""

    rid: RequestId | None = None
    request_id: RequestId | None = None

    @model_validator(mode="after")
    def has_one_name(self) -> Self:
        if self.rid and self.request_id and self.rid != self.request_id:
            message = f"rid {self.rid!r} and request_id {self.request_id!r} name one thing; send one of them"
            raise RequestError(message, code="invalid_value", param="rid")
        return self

    @property
    def name(self) -> str | None:
        return self.request_id or self.rid


class StreamOptions(Body):
    """`include_usage`: one more chunk with the token counts; `continuous_usage_stats`: in every chunk those so far."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class Sampling(Named):
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
    prompt_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None  # vLLM's
    return_token_ids: bool | None = None  # vLLM's
    user: Annotated[str, Field(max_length=LONGEST_NOTE)] | None = None  # accepted, and kept nowhere
    metadata: Annotated[dict[NoteKey, Note], Field(max_length=MOST_NOTES)] | None = None  # the same
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None  # vLLM's

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

    @model_validator(mode="after")
    def tells_prompts_whole(self) -> Self:
        if self.prompt_logprobs is not None and self.stream:
            message = "prompt_logprobs is not served in a stream; send stream: false, or echo with logprobs"
            raise RequestError(message, code="unsupported_parameter", param="prompt_logprobs")
        return self

    @model_validator(mode="after")
    def has_one_format(self) -> Self:
        if self.structured_outputs is not None and not isinstance(self.response_format, TextFormat | None):
            message = "response_format and structured_outputs both say what the answer looks like; send one of them"
            raise RequestError(message, code="invalid_value", param="structured_outputs")
        return self

    def held_to(self) -> str:
        """The grammar that answers are held to, checked; empty: none. Takes its time with large ones."""
        if self.structured_outputs is not None:
            return checked(self.structured_outputs, "structured_outputs")
        return checked(self.response_format, "response_format")

    @property
    def num_choices(self) -> int:
        return self.n or 1

    @property
    def num_prompt_logprobs(self) -> int | None:
        """None: no logprobs of the prompt; else of how many of the likeliest tokens beside its own."""
        return self.prompt_logprobs

    @property
    def scores_field(self) -> str:
        """The field that asks for logprobs of the prompt."""
        return "prompt_logprobs"

    def sampling(self, max_tokens: int, nth: int = 0, grammar: str = "") -> SamplingParams:
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
            grammar=grammar,
            prompt_logprobs=None if nth else self.num_prompt_logprobs,  # once for all choices of a prompt
        )

    def decode(self) -> DecodeParams:
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return DecodeParams(
            stop=tuple(stops),
            skip_special_tokens=self.skip_special_tokens is not False,
            include_stop=bool(self.include_stop_str_in_output),
            min_tokens=self.min_tokens or 0,
            with_ids=bool(self.return_token_ids),
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
    """One turn. What a template may also read (`name`, `tool_call_id`, …) is passed on untouched."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    tool_calls: list[ToolCall] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None  # a newer name of it, which templates do not know

    def for_template(self) -> dict[str, Any]:
        """As templates expect it: one text; `developer` is the newer name of `system`, which no template knows."""
        content = self.content
        text = content if isinstance(content, str) else "".join(part.text or "" for part in content or ())
        more: dict[str, Any] = {name: value for name, value in (self.model_extra or {}).items() if value is not None}
        if thought := self.reasoning_content or self.reasoning:
            more["reasoning_content"] = thought
        if self.tool_calls:  # some templates tell a call by a content that is none
            calls = [call.model_dump(exclude_none=True) for call in self.tool_calls]
            return {**more, "role": self.role, "content": None if content is None else text, "tool_calls": calls}
        return {**more, "role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=INT32_MAX)] | None = None
    # Switches only (`enable_thinking`): text from a client would be text in a place the model's author wrote.
    chat_template_kwargs: dict[str, bool] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    separate_reasoning: bool | None = None  # false: reasoning stays in the content
    include_reasoning: bool | None = None  # the same

    @model_validator(mode="after")
    def has_tools_that_go_together(self) -> Self:
        check_tools(self.tools, self.tool_choice)
        return self

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
    max_tokens: Annotated[int, Field(ge=0, le=INT32_MAX)] | None = None  # 0: for the prompt's logprobs
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None

    @property
    def num_logprobs(self) -> int | None:
        return self.logprobs

    @property
    def num_prompt_logprobs(self) -> int | None:
        """An echo with logprobs tells those of the prompt too."""
        asked = [count for count in (self.prompt_logprobs, self.logprobs if self.echo else None) if count is not None]
        return max(asked, default=None)

    @property
    def scores_field(self) -> str:
        return "prompt_logprobs" if self.prompt_logprobs is not None else "logprobs"

    def decode(self) -> DecodeParams:
        """An echo with logprobs tells of every token, also of one that is no text: lm-eval counts them."""
        tells_all = bool(self.echo) and self.logprobs is not None
        return msgspec.structs.replace(super().decode(), tells_all=tells_all)

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
