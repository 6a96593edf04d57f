"""The two endpoints that generate: body to prompt, prompt to scheduler, texts to the client.

Errors before the first byte are HTTP statuses; after it, one event that ends the stream.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from minisgl.errors import MiniSGLError
from minisgl.messages import Scored, Tokenize
from minisgl.server import faults
from minisgl.server.body import read_json
from minisgl.server.front import Front
from minisgl.server.openai import ChatRequest, CompletionRequest, Sampling, read
from minisgl.server.requests import Ticket
from minisgl.server.sse import DONE, EventStream, SlowReaderError, until_gone
from minisgl.server.style import ChatStyle, CompletionStyle, Style

COMPLETION_TOKENS = 16  # OpenAI's default for completions

Prompt = Callable[[Ticket], Awaitable[NDArray[np.int32]]]


async def chat_completions(request: Request) -> Response:
    front: Front = request.app.state.front
    front.check_open()
    body = read(ChatRequest, await read_json(request, front.args.max_body_bytes))
    front.check_model(body.model)
    front.check_tokens(max(body.logit_bias or (-1,)), "logit_bias")
    words = Tokenize(
        0,
        messages=[message.for_template() for message in body.messages],
        template_args=dict(body.chat_template_kwargs or {}),
    )

    async def prompt(ticket: Ticket) -> NDArray[np.int32]:
        return await front.table.tokenize(ticket, words)

    style = ChatStyle(front.model_name, include_usage=_wants_usage(body), has_logprobs=bool(body.logprobs))
    return Generation(front, body, prompt, style, param="messages", default_len=None)


async def completions(request: Request) -> Response:
    front: Front = request.app.state.front
    front.check_open()
    body = read(CompletionRequest, await read_json(request, front.args.max_body_bytes))
    front.check_model(body.model)
    given = body.only_prompt
    front.check_tokens(max(body.logit_bias or (-1,)), "logit_bias")

    async def prompt(ticket: Ticket) -> NDArray[np.int32]:
        if isinstance(given, str):
            return await front.table.tokenize(ticket, Tokenize(0, text=given))
        return np.asarray(given, np.int32)

    has_logprobs = body.logprobs is not None
    style = CompletionStyle(front.model_name, include_usage=_wants_usage(body), has_logprobs=has_logprobs)
    return Generation(front, body, prompt, style, param="prompt", default_len=COMPLETION_TOKENS)


def _wants_usage(body: Sampling) -> bool:
    return body.stream_options is not None and body.stream_options.include_usage


class Generation(Response):
    """One answer being generated, as an ASGI response: it lives exactly as long as its client listens."""

    def __init__(
        self, front: Front, body: Sampling, prompt: Prompt, style: Style, *, param: str, default_len: int | None
    ) -> None:
        super().__init__()
        self._front, self._body, self._prompt, self._style = front, body, prompt, style
        self._param, self._default_len = param, default_len

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._front.table.open() as ticket:
            await until_gone(receive, self._work(ticket, scope, receive, send))

    async def _work(self, ticket: Ticket, scope: Scope, receive: Receive, send: Send) -> None:
        ids = await self._prompt(ticket)
        self._front.check_tokens(int(ids.max(initial=-1)), self._param)
        max_tokens = self._front.answer_len(len(ids), self._body.token_limit, self._default_len, self._param)
        sampling, priority = self._body.sampling(max_tokens), self._body.priority or 0
        self._front.table.generate(ticket, ids, sampling, self._body.decode(), priority)
        if self._body.stream:
            await self._stream(ticket, EventStream(scope, send))
        else:
            answer = await self._collect(ticket)
            await answer(scope, receive, send)

    async def _stream(self, ticket: Ticket, stream: EventStream) -> None:
        await stream.open()
        try:
            if opening := self._style.opening():
                await stream.put(opening)
            last = None
            while last is None or not last.finish:
                last = await ticket.next_text()
                if piece := self._style.piece(last):
                    await stream.put(piece)
            await stream.put(self._style.ending(last, ticket.prompt_len) + DONE)
        except MiniSGLError as error:
            await stream.put_error(error)
        except SlowReaderError:
            return
        await stream.close()

    async def _collect(self, ticket: Ticket) -> Response:
        pieces: list[str] = []
        tokens: list[Scored] = []
        last = None
        while last is None or not last.finish:
            last = await ticket.next_text()
            pieces.append(last.text)
            tokens += last.tokens
        return faults.json_answer(self._style.whole("".join(pieces), tokens, last, ticket.prompt_len))
