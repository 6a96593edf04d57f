"""What an operator asks of a running server: end generations, empty the prefix cache, show that an answer comes."""

from __future__ import annotations

import asyncio
import time
from typing import Self

from pydantic import model_validator
from starlette.requests import Request
from starlette.responses import Response

from minisgl.errors import RequestError
from minisgl.messages import DecodeParams, SamplingParams, Tokenize
from minisgl.server import faults
from minisgl.server.body import read_json
from minisgl.server.front import Front
from minisgl.server.openai import HIGHEST_PRIORITY, Body, read
from minisgl.server.style import PREFIXES

ANSWER_SECONDS = 20.0  # as SGLang; behind long prompts one token may well take some


class AbortRequest(Body):
    """Whose generations shall end: `rid` and `request_id` are two names of one thing."""

    rid: str | None = None
    request_id: str | None = None
    abort_all: bool | None = None

    @model_validator(mode="after")
    def names_some(self) -> Self:
        if not self.abort_all and not self.name:
            raise RequestError("send request_id, rid, or abort_all: true", code="invalid_value", param="request_id")
        return self

    @property
    def name(self) -> str:
        """The request's id; an answer's id is that of its request behind a prefix."""
        name = self.request_id or self.rid or ""
        return next((name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)), name)


async def abort_request(request: Request) -> Response:
    """Its answers end with finish_reason "abort"; how many generations it were. An unknown one has ended: 0."""
    front: Front = request.app.state.front
    body = read(AbortRequest, await read_json(request, front.args.max_body_bytes))
    return faults.json_answer({"aborted": front.table.abort(None if body.abort_all else body.name)})


async def flush_cache(request: Request) -> Response:
    """What running requests hold stays. The pipe keeps its order: who comes after this answer finds the rest gone."""
    front: Front = request.app.state.front
    front.check_open()
    front.table.flush()
    return faults.json_answer({"status": "ok"})


async def health_generate(request: Request) -> Response:
    """One token through the whole tree, before all that waits."""
    front: Front = request.app.state.front
    front.check_open()
    began = time.monotonic()
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await generate_once(front, 1)
    except TimeoutError:
        message = f"No token came within {ANSWER_SECONDS:g} s."
        raise RequestError(message, status=503, code="no_answer") from None
    return faults.json_answer({"status": "ok", "seconds": round(time.monotonic() - began, 3)})


async def generate_once(front: Front, num_tokens: int) -> None:
    """One real request, from words to words."""
    table = front.table
    with table.open() as ticket:
        ids = await table.tokenize(ticket, Tokenize(0, text="Hello"))
        sampling = SamplingParams(min(num_tokens, front.context_length - len(ids)), temperature=0.0, ignore_eos=True)
        table.generate(ticket, ids, sampling, DecodeParams(), priority=HIGHEST_PRIORITY + 1)
        while not (await ticket.next_text()).finish:
            pass
