"""The endpoints that generate: body to prompts, prompts to scheduler, texts to the client.

Errors before the first byte are HTTP statuses; after it, one event that ends the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from minisgl.errors import MiniSGLError
from minisgl.messages import Detokenize, Scored, Tokenize
from minisgl.server import faults
from minisgl.server.body import read_json
from minisgl.server.choices import Choices
from minisgl.server.door import request_id
from minisgl.server.front import Front
from minisgl.server.openai import ChatRequest, CompletionRequest, Sampling, read
from minisgl.server.requests import Ticket
from minisgl.server.sse import DONE, EventStream, SlowReaderError, until_gone
from minisgl.server.style import ChatStyle, CompletionStyle, Style, usage

COMPLETION_TOKENS = 16  # OpenAI's default for completions

Ids = NDArray[np.int32]
Prompt = Tokenize | Ids  # words, or what a client has tokenized itself


async def chat_completions(request: Request) -> Response:
    front: Front = request.app.state.front
    front.check_open()
    body = read(ChatRequest, await read_json(request, front.args.max_body_bytes))
    words = Tokenize(
        0,
        messages=[message.for_template() for message in body.messages],
        template_args=dict(body.chat_template_kwargs or {}),
    )
    has_logprobs = bool(body.logprobs)
    style = ChatStyle(
        front.model_name, request_id(request.scope), include_usage=_wants_usage(body), has_logprobs=has_logprobs
    )
    return Generation(front, body, [words], style, param="messages", default_len=None)


async def completions(request: Request) -> Response:
    front: Front = request.app.state.front
    front.check_open()
    body = read(CompletionRequest, await read_json(request, front.args.max_body_bytes))
    prompts = [
        Tokenize(0, text=given) if isinstance(given, str) else np.asarray(given, np.int32) for given in body.prompts
    ]
    has_logprobs = body.logprobs is not None
    style = CompletionStyle(
        front.model_name, request_id(request.scope), include_usage=_wants_usage(body), has_logprobs=has_logprobs
    )
    return Generation(front, body, prompts, style, param="prompt", default_len=COMPLETION_TOKENS, echo=bool(body.echo))


def _wants_usage(body: Sampling) -> bool:
    return body.stream_options is not None and body.stream_options.include_usage


class Generation(Response):
    """One answer being generated, as an ASGI response: it lives exactly as long as its client listens."""

    def __init__(
        self,
        front: Front,
        body: Sampling,
        prompts: Sequence[Prompt],
        style: Style,
        *,
        param: str,
        default_len: int | None,
        echo: bool = False,
    ) -> None:
        """Raises RequestError for what is wrong whatever the prompts' length."""
        super().__init__()
        front.check_model(body.model)
        front.check_tokens(max(body.logit_bias or (-1,)), "logit_bias")
        front.check_choices(len(prompts), body.num_choices)
        self._front, self._body, self._prompts, self._style = front, body, prompts, style
        self._param, self._default_len, self._echo = param, default_len, echo
        self._prompt_lens: list[int] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        count = len(self._prompts) * self._body.num_choices
        with self._front.table.open_many(count, request_id(scope)) as tickets:
            await until_gone(receive, self._work(tickets, scope, receive, send))

    async def _work(self, tickets: list[Ticket], scope: Scope, receive: Receive, send: Send) -> None:
        leaders = tickets[:: self._body.num_choices]
        ids = [await self._ids(ticket, prompt) for ticket, prompt in zip(leaders, self._prompts, strict=True)]
        echoes = [await self._text(*known) for known in zip(leaders, self._prompts, ids, strict=True)]
        choices = self._launch(tickets, ids)
        if self._body.stream:
            await self._stream(choices, echoes, EventStream(scope, send))
        else:
            answer = await self._collect(choices, echoes)
            await answer(scope, receive, send)

    async def _ids(self, ticket: Ticket, prompt: Prompt) -> Ids:
        ids = await self._front.table.tokenize(ticket, prompt) if isinstance(prompt, Tokenize) else prompt
        self._front.check_tokens(int(ids.max(initial=-1)), self._param)
        return ids

    async def _text(self, ticket: Ticket, prompt: Prompt, ids: Ids) -> str:
        """The prompt as it stands before each of its answers; empty unless that was asked for."""
        if not self._echo:
            return ""
        if isinstance(prompt, Tokenize):
            return prompt.text or ""
        skip = self._body.skip_special_tokens is not False
        return await self._front.table.detokenize(ticket, Detokenize(0, ids.astype("<i4").tobytes(), skip))

    def _launch(self, tickets: list[Ticket], prompts: list[Ids]) -> Choices:
        """Everything is checked before anything is computed."""
        front, body, n = self._front, self._body, self._body.num_choices
        orders = []
        for ids in prompts:
            max_tokens = front.answer_len(len(ids), body.token_limit, self._default_len, self._param)
            orders += [(ids, body.sampling(max_tokens, nth)) for nth in range(n)]
        self._prompt_lens = [len(ids) for ids in prompts]
        choices = Choices(tickets)
        for index, (ticket, (ids, sampling)) in enumerate(zip(tickets, orders, strict=True)):
            how = body.decode(), body.priority or 0, body.cache_salt or ""
            launch = partial(front.table.generate, ticket, ids, sampling, *how)
            if index % n and len(ids) > front.page_size:
                choices.follow(index - index % n, launch)
            else:
                launch()
        return choices

    async def _stream(self, choices: Choices, echoes: list[str], stream: EventStream) -> None:
        style, n = self._style, self._body.num_choices
        await stream.open()
        try:
            opening = [style.opening(i) + style.piece(i, echoes[i // n]) for i in range(len(echoes) * n)]
            await stream.put(b"".join(opening))
            while choices.are_open:
                events = []
                for index, text in await choices.news():
                    events.append(style.piece(index, text.text, text.tokens))
                    if text.finish:
                        events.append(style.ending(index, text))
                if not choices.are_open:
                    events.append(style.counts(self._usage(choices)) + DONE)
                await stream.put(b"".join(events))
        except MiniSGLError as error:
            await stream.put_error(error)
        except SlowReaderError:
            return
        await stream.close()

    async def _collect(self, choices: Choices, echoes: list[str]) -> Response:
        n = self._body.num_choices
        said = [[echoes[i // n]] for i in range(len(echoes) * n)]
        tokens: list[list[Scored]] = [[] for _ in said]
        while choices.are_open:
            for index, text in await choices.news():
                said[index].append(text.text)
                tokens[index] += text.tokens
        whole = [self._style.choice(i, "".join(said[i]), tokens[i], choices.lasts[i]) for i in range(len(said))]
        return faults.json_answer(self._style.whole(whole, self._usage(choices)))

    def _usage(self, choices: Choices) -> dict[str, object]:
        """A prompt counts once, however many choices it has, and so does what its first one found in the cache."""
        cached = sum(choices.lasts[i * self._body.num_choices].cached_tokens for i in range(len(self._prompt_lens)))
        return usage(sum(self._prompt_lens), sum(last.num_tokens for last in choices.lasts.values()), cached)
