"""The endpoints that generate: body to prompts, prompts to scheduler, texts to the client.

Errors before the first byte are HTTP statuses; after it, one event that ends the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from minisgl.errors import MiniSGLError
from minisgl.messages import Detokenize, PromptToken, Scored, Tokenize
from minisgl.server import faults
from minisgl.server.body import read_json
from minisgl.server.chat import check_calls, reading_of, words_of
from minisgl.server.choices import Choices
from minisgl.server.door import rename, request_id
from minisgl.server.front import Front
from minisgl.server.logprobs import prompt_logprobs
from minisgl.server.openai import ChatRequest, CompletionRequest, Sampling, read
from minisgl.server.reading import ReadingStyle
from minisgl.server.requests import Ticket
from minisgl.server.sse import DONE, EventStream, SlowReaderError, until_gone
from minisgl.server.style import ChatStyle, CompletionStyle, Style, usage

COMPLETION_TOKENS = 16  # OpenAI's default for completions

Ids = NDArray[np.int32]
Prompt = Tokenize | Ids  # words, or what a client has tokenized itself


async def chat_completions(request: Request) -> Response:
    """OpenAI's chat completions, whole or streamed."""
    front: Front = request.app.state.front
    front.check_open()
    body = read(ChatRequest, await read_json(request, front.args.max_body_bytes))
    rename(request.scope, body.name)
    asked = {"include_usage": _wants_usage(body), "has_logprobs": bool(body.logprobs)}
    reading = reading_of(body, front.tool_parser, front.reasoning_parser)
    if reading is not None and reading.calls is not None:
        await asyncio.to_thread(check_calls, reading.calls)
    name, of = front.model_name, request_id(request.scope)
    style = ChatStyle(name, of, **asked) if reading is None else ReadingStyle(name, of, reading, **asked)
    return Generation(front, body, [words_of(body)], style, param="messages", default_len=None)


async def completions(request: Request) -> Response:
    """OpenAI's completions, whole or streamed."""
    front: Front = request.app.state.front
    front.check_open()
    body = read(CompletionRequest, await read_json(request, front.args.max_body_bytes))
    rename(request.scope, body.name)
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
        front.check_choices(len(prompts), body.num_choices, param)
        self._front, self._body, self._prompts, self._style = front, body, prompts, style
        self._param, self._default_len, self._echo = param, default_len, echo
        self._prompt_lens: list[int] = []
        self._grammar = ""
        self._told: dict[int, tuple[PromptToken, ...]] = {}  # of prompts whose logprobs were asked for
        self._style.with_ids = bool(body.return_token_ids)
        options = body.stream_options
        self._counts_always = options is not None and options.continuous_usage_stats

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        count = len(self._prompts) * self._body.num_choices
        is_unique = self._body.name is not None
        with self._front.table.open_many(count, request_id(scope), is_unique=is_unique) as tickets:
            await until_gone(receive, self._work(tickets, scope, receive, send))

    async def _work(self, tickets: list[Ticket], scope: Scope, receive: Receive, send: Send) -> None:
        if self._body.response_format or self._body.structured_outputs:
            self._grammar = await asyncio.to_thread(self._body.held_to)
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
        if isinstance(prompt, Tokenize):
            words = await self._front.table.words(ticket, prompt)
            self._style.take_prompt(words.thinks)
            ids = np.frombuffer(words.ids, "<i4")
        else:
            ids = prompt
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
            orders += [(ids, self._style.sampling(body.sampling(max_tokens, nth, self._grammar))) for nth in range(n)]
        self._prompt_lens = [len(ids) for ids in prompts]
        if (num_top := body.num_prompt_logprobs) is not None:
            front.check_scores(sum(self._prompt_lens), num_top, body.scores_field)
        self._style.prompts = prompts
        choices = Choices(tickets)
        for index, (ticket, (ids, sampling)) in enumerate(zip(tickets, orders, strict=True)):
            how = (
                self._style.decode(body.decode()),
                body.priority or 0,
                body.cache_salt or "",
            )
            launch = partial(front.table.generate, ticket, ids, sampling, *how)
            if index % n and (len(ids) > front.page_size or body.num_prompt_logprobs is not None):
                choices.follow(index - index % n, launch)
            else:
                launch()
        return choices

    async def _stream(self, choices: Choices, echoes: list[str], stream: EventStream) -> None:
        style, n = self._style, self._body.num_choices
        await stream.open()
        try:
            if not self._scores_echo:  # else each opens when its prompt's tokens are known
                await stream.put(b"".join(self._open(i, echoes) for i in range(len(echoes) * n)))
            while choices.are_open:
                events = []
                for index, text in await choices.news():
                    events += self._take_prompt(index, text.prompt, echoes)
                    style.note(index, text, self._usage(choices) if self._counts_always else None)
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

    @property
    def _scores_echo(self) -> bool:
        return self._echo and self._body.num_logprobs is not None

    def _open(self, index: int, echoes: list[str]) -> bytes:
        return self._style.opening(index) + self._style.piece(index, echoes[index // self._body.num_choices])

    def _take_prompt(self, leader: int, prompt: tuple[PromptToken, ...], echoes: list[str]) -> list[bytes]:
        """What is known of a prompt came with its first choice: all its choices open now, if they begin with it."""
        n = self._body.num_choices
        if not prompt:
            return []
        self._told[leader // n] = prompt
        if not self._scores_echo:
            return []
        choices = range(leader, leader + n)
        for index in choices:
            self._style.echo(index, echoes[leader // n], prompt, self._body.num_logprobs or 0)
        return [self._open(index, echoes) for index in choices] if self._body.stream else []

    async def _collect(self, choices: Choices, echoes: list[str]) -> Response:
        n = self._body.num_choices
        said = [[echoes[i // n]] for i in range(len(echoes) * n)]
        tokens: list[list[Scored]] = [[] for _ in said]
        while choices.are_open:
            for index, text in await choices.news():
                self._take_prompt(index, text.prompt, echoes)
                self._style.note(index, text, None)
                said[index].append(text.text)
                tokens[index] += text.tokens
        whole = [self._style.choice(i, "".join(said[i]), tokens[i], choices.lasts[i]) for i in range(len(said))]
        answer = self._style.whole(whole, self._usage(choices))
        self._style.add_prompts(answer, [self._about(i) for i in range(len(echoes))], n)
        return faults.json_answer(answer)

    def _about(self, index: int) -> dict[str, object]:
        """What was asked about a prompt."""
        body, about = self._body, dict[str, object]()
        if body.prompt_logprobs is not None:
            about["prompt_logprobs"] = prompt_logprobs(self._told.get(index, ()), body.prompt_logprobs)
        if body.return_token_ids:
            about["prompt_token_ids"] = self._style.prompts[index].tolist()
        return about

    def _usage(self, choices: Choices) -> dict[str, object]:
        """A prompt counts once, however many choices it has, and so does what its first one found in the cache."""
        n, lasts = self._body.num_choices, choices.lasts.values()
        cached = sum(last.cached_tokens for index, last in choices.lasts.items() if index % n == 0)
        said, thought = sum(last.num_tokens for last in lasts), sum(last.reasoning_tokens for last in lasts)
        return usage(sum(self._prompt_lens), said, cached, thought)
