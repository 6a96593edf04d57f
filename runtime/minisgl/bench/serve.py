"""`serve`: any OpenAI server under load: streams in a closed loop, or arrivals like those of many independent users.

A request's clock starts when it is due, not when it is sent: where client or connection is late, that is seen.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import uvloop
from tqdm.auto import tqdm

from minisgl.bench.answer import Answer
from minisgl.bench.client import Endpoint, Failed
from minisgl.bench.load import Load, bodies
from minisgl.bench.report import Report
from minisgl.bench.summary import notes, rows, totals
from minisgl.errors import MiniSGLError, UsageError

PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}


@dataclass(frozen=True)
class Run:
    """What happened: every request's answer, and what it took."""

    answers: Sequence[Answer]
    seconds: float
    client_seconds: float  # of this process on a core


def measure(own: argparse.Namespace) -> Report:
    """Find the model, warm up, send everything, count what comes. Raises MiniSGLError if no server is there."""
    if own.rate is not None and own.concurrency is not None:
        raise UsageError("--rate lets requests arrive by themselves, --concurrency in the place of others; give one")
    try:
        endpoint = Endpoint(own.url, os.environ.get("OPENAI_API_KEY"))
    except ValueError as error:
        raise UsageError(f"--url {error}") from None
    load = Load(own.num_prompts, own.input_len, own.output_len, own.seed, own.rate, own.concurrency)
    return uvloop.run(_measure(endpoint, load, own))


async def _measure(endpoint: Endpoint, load: Load, own: argparse.Namespace) -> Report:
    model = own.model or await _first_model(endpoint, own.url)
    sampling = {"model": model, "temperature": own.temperature, "ignore_eos": own.eos == "ignore"}
    requests = bodies(load, own.api, own.vocab_size, sampling)
    warm_up = bodies(load.warm_up(own.warm_up), own.api, own.vocab_size, sampling)
    for body in warm_up:
        await _one(endpoint, own, body, time.perf_counter())
    run = await _all(endpoint, own, load, requests)
    workload = load.content() | {"api": own.api, "temperature": own.temperature, "eos": own.eos}
    result = totals(run.answers, run.seconds, run.client_seconds)
    is_useless = not result["requests"]
    return Report(
        "serve",
        model,
        None,
        workload,
        rows(run.answers),
        notes(result, load),
        {"url": own.url, "totals": result},
        exit_code=1 if is_useless else 0,
    )


async def _first_model(endpoint: Endpoint, url: str) -> str:
    """Also the proof that a server is there, before anything is measured."""
    try:
        async with asyncio.timeout(30):
            status, body = await endpoint.ask("GET", "/v1/models")
    except (Failed, TimeoutError) as error:
        raise MiniSGLError(f"--url {url}: {str(error) or 'no answer within 30 s'}; is the server up?") from None
    if status == 401:
        raise MiniSGLError(f"--url {url} wants a key; give it in the environment as OPENAI_API_KEY")
    try:
        return str(msgspec.json.decode(body)["data"][0]["id"])
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError):
        raise MiniSGLError(
            f"--url {url}: GET /v1/models names no model (HTTP {status}); give --model, or the address of a server "
            "that speaks OpenAI's protocol"
        ) from None


async def _all(endpoint: Endpoint, own: argparse.Namespace, load: Load, requests: Sequence[bytes]) -> Run:
    answers: list[Answer] = []
    tokens = 0
    used, began = _processor_seconds(), time.perf_counter()
    with tqdm(total=len(requests), unit=" requests", disable=None) as bar:

        async def one(body: bytes, due_at: float) -> None:
            nonlocal tokens
            answer = await _one(endpoint, own, body, due_at)
            answers.append(answer)
            tokens += answer.num_tokens
            failed = sum(1 for each in answers if each.failure)
            speed = tokens / (time.perf_counter() - began)
            bar.set_postfix_str(f"{speed:,.0f} tokens/s" + (f", {failed} failed" if failed else ""), refresh=False)
            bar.update()

        if load.rate is None:
            left = iter(requests)

            async def in_turn() -> None:
                for body in left:
                    await one(body, time.perf_counter())

            await asyncio.gather(*(in_turn() for _ in range(load.concurrency)))
        else:
            async with asyncio.TaskGroup() as group:
                for body, at in zip(requests, load.arrivals(), strict=True):
                    await asyncio.sleep(max(0, began + at - time.perf_counter()))
                    group.create_task(one(body, began + at))
    return Run(answers, time.perf_counter() - began, _processor_seconds() - used)


async def _one(endpoint: Endpoint, own: argparse.Namespace, body: bytes, due_at: float) -> Answer:
    """Never raises: what goes wrong is the answer's failure."""
    answer = Answer(due_at)
    try:
        async with asyncio.timeout(own.timeout):
            answer.end(*await endpoint.ask("POST", PATHS[own.api], body, answer.feed))
    except TimeoutError:
        answer.failure = f"not whole within {own.timeout:g} s"
    except Failed as failed:
        answer.failure = str(failed)
    answer.ended_at = time.perf_counter()
    return answer


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
