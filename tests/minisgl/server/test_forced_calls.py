"""Calls that a grammar forces out of a model with random weights: every one of them is whole and fits its schema."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from jsonschema import Draft202012Validator
from openai.types.chat import ChatCompletionMessageFunctionToolCall

from support.server import TINY, Server, running
from support.words import save_dummy

pytestmark = pytest.mark.cpu

WEATHER = {
    "type": "object",
    "properties": {
        "unit": {"enum": ["celsius", 'Grad "Réaumur" 😀']},
        "days": {"type": "integer", "minimum": 0, "maximum": 14},
        "hours": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    },
    "required": ["unit", "days"],
    "additionalProperties": False,
}  # bounded: a model without sense would write a free text for ever
SCHEMAS: dict[str, Any] = {"get_weather": WEATHER, "now": {"type": "object", "maxProperties": 0}}
TOOLS: Any = [
    {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "now"}},
]
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}
ASKED: Any = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "How warm is it?"}],
    "tools": TOOLS,
    "extra_body": {"chat_template_kwargs": {"enable_thinking": False}},  # else it might think for ever
}


@pytest.fixture(scope="module", params=["hermes", "llama3", "pythonic"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = save_dummy(tmp_path_factory.mktemp("model"))
    with running(
        folder, *TINY, f"--tool-call-parser={request.param}", "--reasoning-parser=qwen3", module="minisgl"
    ) as it:
        yield it


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as ready:
        yield ready


def checked(calls: Any) -> list[tuple[str, str]]:
    found = []
    for call in calls or ():
        assert isinstance(call, ChatCompletionMessageFunctionToolCall)
        Draft202012Validator(SCHEMAS[call.function.name]).validate(json.loads(call.function.arguments))
        found.append((call.function.name, call.function.arguments))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_named_function_is_called_once(client: openai.OpenAI, seed: int) -> None:
    choice = client.chat.completions.create(**ASKED, tool_choice=NAMED, seed=seed, max_tokens=900).choices[0]
    [(name, _)] = checked(choice.message.tool_calls)
    assert (name, choice.message.content, choice.finish_reason) == ("get_weather", None, "tool_calls")


def test_the_stream_of_a_forced_call_says_the_same(server: Server, client: openai.OpenAI) -> None:
    body = {**ASKED, "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 900, "seed": 3}
    [(name, arguments)] = checked(client.chat.completions.create(**body).choices[0].message.tool_calls)

    async def stream() -> tuple[str, str, Any]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="-") as many:
            told, text, reason = "", "", None
            async for chunk in await many.chat.completions.create(**body, stream=True):
                for call in chunk.choices[0].delta.tool_calls or ():
                    assert call.function is not None
                    told += call.function.name or ""
                    text += call.function.arguments or ""
                reason = chunk.choices[0].finish_reason or reason
            return told, text, reason

    assert asyncio.run(stream()) == (name, arguments, "tool_calls")


def test_required_calls_come_one_after_the_other(client: openai.OpenAI) -> None:
    for choice in client.chat.completions.create(**ASKED, tool_choice="required", n=4, max_tokens=500).choices:
        if choice.finish_reason == "tool_calls":
            assert checked(choice.message.tool_calls)
            assert choice.message.content is None
        else:  # it would go on for ever
            assert choice.finish_reason == "length"
            checked((choice.message.tool_calls or ())[:-1])
            # A call that is cut off before its arguments begin is none: what there is of it is content.
            assert len(choice.message.content or "") < len('<tool_call>\n{"name": "get_weather", "arguments": ')


@pytest.mark.parametrize("thinks", [True, False])
def test_a_model_that_thinks_is_held_behind_its_reasoning(client: openai.OpenAI, thinks: bool) -> None:
    body = {**ASKED, "extra_body": {"chat_template_kwargs": {"enable_thinking": thinks}}}
    bias = {"60": 8, "47": 4} if thinks else {}  # "<" and "/": it stops thinking some time
    answer = client.chat.completions.create(**body, tool_choice=NAMED, max_tokens=1500, logit_bias=bias)
    choice = answer.choices[0]
    if choice.finish_reason == "tool_calls":
        assert len(checked(choice.message.tool_calls)) == 1
    else:
        assert thinks
        assert choice.message.to_dict()["reasoning_content"]


def test_strict_tools_hold_the_calls_and_leave_the_text(client: openai.OpenAI) -> None:
    strict = [{"type": "function", "function": {**tool["function"], "strict": True}} for tool in TOOLS]
    body = {**ASKED, "tools": strict, "max_tokens": 200, "n": 3}
    for choice in client.chat.completions.create(**body).choices:
        if choice.finish_reason == "tool_calls":
            checked(choice.message.tool_calls)
        else:
            assert choice.message.content


@pytest.mark.parametrize(
    "function",
    [
        {"name": "f", "strict": True, "parameters": {"type": "object", "properties": {"a": {"pattern": "("}}}},
        {"name": "f", "strict": True, "parameters": {"type": "object", "properties": {"a": {"$ref": "#/$defs/no"}}}},
    ],
)
def test_a_schema_that_cannot_be_kept_is_told(server: Server, function: dict[str, Any]) -> None:
    for choice in ("auto", "required"):
        tools = [{"type": "function", "function": function}]
        body = {"messages": ASKED["messages"], "tools": tools, "tool_choice": choice, "max_tokens": 9}
        answer = server.post("/v1/chat/completions", **body)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["code"]) == (400, "tools", "invalid_value"), error
