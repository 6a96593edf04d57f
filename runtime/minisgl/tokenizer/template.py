"""The model's chat template: jinja2 in the immutable sandbox, within a time limit.

The template comes with the model, its input from clients: neither may reach Python, nor hold the process for long.
The names a template may use are those of transformers' `apply_chat_template`.
"""

from __future__ import annotations

import datetime
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import jinja2
import msgspec
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

TIME_LIMIT_SECONDS = 1.0


class TimeLimitError(Exception):
    """The template ran too long."""


class Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks the assistant's words for training; here it only encloses them."""

    tags = {"generation"}  # noqa: RUF012  jinja2's declaration

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """transformers' `tojson`: jinja2's own escapes HTML, which no model was trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def strftime_now(pattern: str) -> str:
    return datetime.datetime.now().astimezone().strftime(pattern)


class ChatTemplate:
    """One compiled template. `render` has a time limit in the process's main thread."""

    def __init__(self, source: str, special_tokens: dict[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
        )
        environment.filters["tojson"] = to_json
        environment.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
        self._template = environment.from_string(source)
        self._special_tokens = special_tokens
        self._takes_objects = self._wants_objects()

    def render(self, messages: list[dict[str, Any]], template_args: dict[str, Any]) -> str:
        """`messages` have the arguments of tool calls as JSON texts, as OpenAI; the template gets what it can write."""
        return self._render(with_objects(messages) if self._takes_objects else messages, template_args)

    def _wants_objects(self) -> bool:
        """Most templates write a call's arguments with `tojson`, some put them behind a text: try it out."""
        call = {"type": "function", "id": "call00000", "function": {"name": "f", "arguments": {"probe": 1}}}
        asked: list[dict[str, Any]] = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call00000", "name": "f", "content": "!"},
        ]
        try:
            return "{'probe'" not in self._render(asked, {})
        except TypeError:  # a text plus an object
            return False
        except Exception:  # it wants other messages: that tells nothing
            return True

    def _render(self, messages: list[dict[str, Any]], template_args: dict[str, Any]) -> str:
        with time_limit(TIME_LIMIT_SECONDS):
            defaults = {"tools": None, "documents": None, "add_generation_prompt": True}
            return self._template.render({**defaults, **template_args, **self._special_tokens, "messages": messages})


def with_objects(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same messages with the arguments of tool calls as objects; what is no JSON object stays a text."""
    return [
        {**message, "tool_calls": [_with_object(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]


def _with_object(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    try:
        return {**call, "function": {**function, "arguments": msgspec.json.decode(function["arguments"], type=dict)}}
    except (msgspec.DecodeError, RecursionError):
        return call


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimitError in the main thread when the body takes longer; elsewhere there is no timer.

    Servers render in their main thread. An offline caller may use another, with a model and messages of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: object) -> NoReturn:
        raise TimeLimitError(f"it ran longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
