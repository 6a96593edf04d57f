"""POST /generate, in SGLang's shape: its names of the fields, its events with the whole text so far, its `meta_info`.

Underneath it is a completion: the fields are given OpenAI's names and go the same way.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any, Self

import msgspec
import numpy as np
from pydantic import Field, create_model, model_validator
from starlette.requests import Request
from starlette.responses import Response

from minisgl.errors import RequestError
from minisgl.messages import DecodeParams, Finish, PromptToken, Scored, Text, Tokenize
from minisgl.server.body import read_json
from minisgl.server.door import rename, request_id
from minisgl.server.front import Front
from minisgl.server.generation import Generation
from minisgl.server.logprobs import LOWEST, text_of
from minisgl.server.openai import INT32_MAX, MOST_LOGPROBS, Body, CompletionRequest, Named, Sampling, TokenId, read
from minisgl.server.sse import event_of
from minisgl.server.style import Style

NEW_TOKENS = 128  # SGLang's default
SAME = (  # fields of `sampling_params` with OpenAI's name and bounds
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "stop",
    "stop_token_ids",
    "ignore_eos",
    "skip_special_tokens",
    "logit_bias",
    "n",
)
RENAMED = {
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "sampling_seed": "seed",
    "no_stop_trim": "include_stop_str_in_output",
}
NOT_SERVED = ("json_schema", "regex", "ebnf", "structural_tag")

_Same = create_model(
    "_Same",
    __base__=Body,
    **{name: (Sampling.model_fields[name].annotation, None) for name in SAME},  # type: ignore[call-overload]
)


class GenerateSampling(_Same):  # type: ignore[valid-type,misc]
    """How to choose, and when to end."""

    max_new_tokens: Annotated[int, Field(ge=0, le=INT32_MAX)] | None = None
    min_new_tokens: Annotated[int, Field(ge=0, le=INT32_MAX)] | None = None
    sampling_seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    no_stop_trim: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def asks_for_what_is_served(cls, fields: Any) -> Any:
        for name in NOT_SERVED if isinstance(fields, dict) else ():
            if fields.get(name) is not None:
                param = f"sampling_params.{name}"
                message = f"{param} is not served here; /v1/chat/completions has response_format"
                raise RequestError(message, code="unsupported_parameter", param=param)
        return fields


class GenerateRequest(Named):
    """`text` or `input_ids`, one or a list."""

    text: str | Annotated[list[str], Field(min_length=1)] | None = None
    input_ids: (
        Annotated[list[TokenId], Field(min_length=1)] | Annotated[list[list[TokenId]], Field(min_length=1)] | None
    ) = None
    sampling_params: GenerateSampling | None = None
    stream: bool | None = None
    return_logprob: bool | None = None
    logprob_start_len: Annotated[int, Field(ge=-1, le=INT32_MAX)] | None = None  # -1: none of the prompt
    top_logprobs_num: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    return_text_in_logprobs: bool | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000)] | None = None

    @model_validator(mode="after")
    def has_one_kind_of_prompt(self) -> Self:
        if (self.text is None) == (self.input_ids is None):
            raise RequestError("send either text or input_ids", code="invalid_value", param="text")
        return self

    @property
    def param(self) -> str:
        return "text" if self.input_ids is None else "input_ids"

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        given: Any = self.text if self.input_ids is None else self.input_ids
        return given if self.is_list else [given]

    @property
    def is_list(self) -> bool:
        """Whether the answer is a list."""
        if self.input_ids is None:
            return isinstance(self.text, list)
        return isinstance(self.input_ids[0], list)

    def completion(self) -> Underneath:
        """The same as a completion."""
        sampling = self.sampling_params or GenerateSampling()
        asked = {name: getattr(sampling, name) for name in SAME}
        asked |= {theirs: getattr(sampling, ours) for ours, theirs in RENAMED.items()}
        tells = bool(self.return_logprob)
        return Underneath(
            prompt=self.prompts,
            stream=self.stream,
            request_id=self.name,
            priority=self.priority,
            logprobs=(self.top_logprobs_num or 0) if tells else None,
            tells_prompt=tells and (-1 if self.logprob_start_len is None else self.logprob_start_len) >= 0,
            **asked,
        )


class Underneath(CompletionRequest):
    """A completion that tells of every token."""

    tells_prompt: bool = False

    @property
    def num_prompt_logprobs(self) -> int | None:
        return self.logprobs if self.tells_prompt else None

    @property
    def scores_field(self) -> str:
        return "top_logprobs_num"

    def decode(self) -> DecodeParams:
        return msgspec.structs.replace(super().decode(), tells_all=self.logprobs is not None, with_ids=True)


async def generate(request: Request) -> Response:
    """SGLang's own endpoint, whole or streamed."""
    front: Front = request.app.state.front
    front.check_open()
    body = read(GenerateRequest, await read_json(request, front.args.max_body_bytes))
    rename(request.scope, body.name)
    prompts = [Tokenize(0, text=p) if isinstance(p, str) else np.asarray(p, np.int32) for p in body.prompts]
    style = GenerateStyle(front.model_name, request_id(request.scope), body)
    return Generation(front, body.completion(), prompts, style, param=body.param, default_len=NEW_TOKENS)


class GenerateStyle(Style):
    """Every event is the whole answer so far; of several answers it says which."""

    prefix = ""

    def __init__(self, model: str, request_id: str, asked: GenerateRequest) -> None:
        super().__init__(model, request_id, include_usage=False, has_logprobs=bool(asked.return_logprob))
        self._asked, self._began = asked, time.monotonic()
        self._n = (asked.sampling_params.n if asked.sampling_params else None) or 1
        self._is_list = asked.is_list or self._n > 1
        self._latest: dict[int, Text] = {}
        self._texts: dict[int, str] = defaultdict(str)
        self._said: dict[int, list[int]] = defaultdict(list)
        self._scored: dict[int, list[Scored]] = defaultdict(list)
        self._prompt_tokens: dict[int, tuple[PromptToken, ...]] = {}

    def note(self, index: int, text: Text, used: dict[str, Any] | None) -> None:
        self._latest[index] = text
        self._said[index] += np.frombuffer(text.ids, "<i4").tolist()
        if text.prompt:
            self._prompt_tokens[index // self._n] = text.prompt

    def piece(self, index: int, text: str, tokens: Sequence[Scored] = ()) -> bytes:
        self._add(index, text, tokens)
        latest = self._latest.get(index)
        return event_of(self._answer(index, latest)) if latest and (text or tokens) and not latest.finish else b""

    def ending(self, index: int, last: Text) -> bytes:
        return event_of(self._answer(index, last))

    def choice(self, index: int, text: str, tokens: Sequence[Scored], last: Text) -> dict[str, Any]:
        self._add(index, text, tokens)
        return self._answer(index, last)

    def whole(self, choices: Sequence[dict[str, Any]], used: dict[str, Any]) -> Any:
        return choices if self._is_list else choices[0]

    def add_prompts(self, answer: Any, about: Sequence[dict[str, Any]], n: int) -> None:
        """All is said in `meta_info`."""

    def _add(self, index: int, text: str, tokens: Sequence[Scored]) -> None:
        self._texts[index] += text
        self._scored[index] += tokens

    def _answer(self, index: int, latest: Text) -> dict[str, Any]:
        said = self._said[index]
        meta: dict[str, Any] = {
            "id": self._id,
            "finish_reason": self._reason(latest, said),
            "prompt_tokens": len(self.prompts[index // self._n]),
            "completion_tokens": latest.num_tokens,
            "cached_tokens": latest.cached_tokens,
            "e2e_latency": round(time.monotonic() - self._began, 6),
        }
        if self._has_logprobs:
            meta |= self._logprobs(index)
        answer = {"text": self._texts[index], "output_ids": list(said), "meta_info": meta}
        return answer | ({"index": index} if self._is_list and self._asked.stream else {})

    def _reason(self, latest: Text, said: Sequence[int]) -> dict[str, Any] | None:
        match latest.finish:
            case Finish.LENGTH:
                return {"type": "length", "length": latest.num_tokens}
            case Finish.STOP:
                return {"type": "stop", "matched": latest.stopped_by or (said[-1] if said else None)}
            case Finish.ABORT:
                return {"type": "abort", "message": "The request was aborted."}
        return None

    def _logprobs(self, index: int) -> dict[str, Any]:
        """`[logprob, id, text or null]` for each token; and the same of the likeliest ones there, if asked for."""
        scored, said = self._scored[index], self._said[index]
        told: dict[str, Any] = {
            "output_token_logprobs": [self._one(t.logprob, i, t.spelling) for t, i in zip(scored, said, strict=False)]
        }
        prompt = self._prompt_tokens.get(index // self._n)
        if prompt is not None:
            shown = prompt[self._asked.logprob_start_len or 0 :]
            told["input_token_logprobs"] = [self._one(t.logprob, t.token, t.spelling) for t in shown]
            if self._asked.top_logprobs_num:
                told["input_top_logprobs"] = [
                    [self._one(p, token, spelling) for token, spelling, p in t.top] if t.logprob is not None else None
                    for t in shown
                ]
        return told

    def _one(self, logprob: float | None, token: int, spelling: bytes) -> list[Any]:
        text = text_of(spelling) if self._asked.return_text_in_logprobs else None
        return [None if logprob is None else max(logprob, LOWEST), token, text]
