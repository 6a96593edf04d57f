"""POST /tokenize and /detokenize, in vLLM's shapes: what tokenizer and chat template make of a client's words.

No prompt is too long for them but the body's limit; nothing is computed by the model.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field, model_validator
from starlette.requests import Request
from starlette.responses import Response

from minisgl.errors import RequestError
from minisgl.messages import Detokenize, Tokenize
from minisgl.server import faults
from minisgl.server.body import read_json
from minisgl.server.door import rename
from minisgl.server.front import Front
from minisgl.server.openai import ChatMessage, Named, TokenId, read
from minisgl.server.tools import MOST_TOOLS, Tool, check_tools


class TokenizeRequest(Named):
    """A text, or a chat as the model's template writes it."""

    model: str | None = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(None, min_length=1)
    add_special_tokens: bool | None = None  # of a text: yes, unless told otherwise; a template writes its own
    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, bool] | None = None
    tools: Annotated[list[Tool], Field(max_length=MOST_TOOLS)] | None = None  # of a chat
    return_token_strs: bool | None = None

    @model_validator(mode="after")
    def has_words(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise RequestError("send either prompt or messages", code="invalid_value", param="prompt")
        check_tools(self.tools, None)
        return self

    def message(self) -> Tokenize:
        pieces = bool(self.return_token_strs)
        if self.messages is None:
            add = self.add_special_tokens is not False
            return Tokenize(0, text=self.prompt, add_special_tokens=add, with_pieces=pieces)
        args: dict[str, Any] = {"add_generation_prompt": self.add_generation_prompt is not False}
        args |= self.chat_template_kwargs or {}
        if self.tools:
            args["tools"] = [tool.for_template() for tool in self.tools]
        return Tokenize(
            0,
            messages=[message.for_template() for message in self.messages],
            template_args=args,
            with_pieces=pieces,
        )


class DetokenizeRequest(Named):
    """Token ids of the model."""

    model: str | None = None
    tokens: list[TokenId]


async def tokenize(request: Request) -> Response:
    """What the tokenizer and the chat template make of words."""
    front: Front = request.app.state.front
    front.check_open()
    body = read(TokenizeRequest, await read_json(request, front.args.max_body_bytes))
    rename(request.scope, body.name)
    front.check_model(body.model)
    with front.table.open() as ticket:
        words = await front.table.words(ticket, body.message())
    ids = np.frombuffer(words.ids, "<i4").tolist()
    pieces = list(words.pieces) if body.return_token_strs else None
    content = {"count": len(ids), "max_model_len": front.context_length, "tokens": ids, "token_strs": pieces}
    return faults.json_answer(content)


async def detokenize(request: Request) -> Response:
    """The text of token ids."""
    front: Front = request.app.state.front
    front.check_open()
    body = read(DetokenizeRequest, await read_json(request, front.args.max_body_bytes))
    rename(request.scope, body.name)
    front.check_model(body.model)
    front.check_tokens(max(body.tokens, default=-1), "tokens")
    with front.table.open() as ticket:
        text = await front.table.detokenize(ticket, Detokenize(0, np.asarray(body.tokens, "<i4").tobytes()))
    return faults.json_answer({"prompt": text})
