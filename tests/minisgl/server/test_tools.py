"""Tools and reasoning as the official client sees them: a scheduler says known tokens through the real detokenizer."""

import asyncio
import functools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionMessageFunctionToolCall

from minisgl.process import Dialect
from support.front import FrontEnd
from support.server import Server, running
from support.words import save_words

cpu = pytest.mark.cpu
USER: Any = [{"role": "user", "content": "hi"}]


def tool(name: str, **schema: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", **schema}}}


WEATHER = tool("get_weather", properties={"city": {"type": "string"}}, required=["city"])
TOOLS: Any = [WEATHER, tool("now")]
TWO_CALLS = """I look.
<tool_call>
{"name": "get_weather", "arguments": {"city": "Zürich 😀"}}
</tool_call>
<tool_call>
{"name": "now", "arguments": {}}
</tool_call>"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ("--tool-call-parser=hermes", "--reasoning-parser=qwen3", "--num-tokenizer=1")
    with running(save_words(tmp_path_factory.mktemp("model")), *flags) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as ready:
        yield ready


def says(text: str, **fields: Any) -> Any:
    """A request that is answered with `text`."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": f"\x02{text}\x03"}], **fields}
    extra = {name: body.pop(name) for name in ("separate_reasoning", "include_reasoning", "thinks") if name in body}
    if "thinks" in extra:
        extra["chat_template_kwargs"] = {"enable_thinking": extra.pop("thinks")}
    return body | {"extra_body": extra}


def gather(client: openai.OpenAI, body: Any) -> tuple[dict[str, Any], Any]:
    """The stream put together as a message, and its usage."""
    whole: dict[str, Any] = {"content": "", "reasoning_content": "", "calls": [], "finish_reason": None}
    usage = None
    for chunk in client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            assert whole["finish_reason"] is None, "nothing comes after the end"
            whole["finish_reason"] = choice.finish_reason
            whole["content"] += choice.delta.content or ""
            whole["reasoning_content"] += getattr(choice.delta, "reasoning_content", None) or ""
            for call in choice.delta.tool_calls or ():
                assert call.function is not None
                if call.id:
                    assert (call.type, call.index) == ("function", len(whole["calls"]))
                    whole["calls"].append([call.function.name, ""])
                whole["calls"][call.index][1] += call.function.arguments or ""
    return whole, usage


def plain(answer: ChatCompletion) -> dict[str, Any]:
    choice = answer.choices[0]
    calls = []
    for call in choice.message.tool_calls or ():
        assert isinstance(call, ChatCompletionMessageFunctionToolCall)
        assert call.id.startswith("call_")
        calls.append([call.function.name, call.function.arguments])
    return {
        "content": choice.message.content or "",
        "reasoning_content": getattr(choice.message, "reasoning_content", None) or "",
        "calls": calls,
        "finish_reason": choice.finish_reason,
    }


def both(client: openai.OpenAI, body: Any) -> dict[str, Any]:
    """The plain answer, which the stream says too; `reasoning_tokens` is that of usage."""
    answer = client.chat.completions.create(**body)
    streamed, usage = gather(client, body)
    assert streamed == plain(answer)
    assert usage == answer.usage
    details = answer.usage.completion_tokens_details if answer.usage else None
    assert details is not None
    return streamed | {"reasoning_tokens": details.reasoning_tokens}


@cpu
def test_calls_are_typed_for_the_official_client(client: openai.OpenAI) -> None:
    answer = both(client, says(TWO_CALLS, tools=TOOLS, tool_choice="auto"))
    assert answer == {
        "content": "I look.",
        "reasoning_content": "",
        "calls": [["get_weather", '{"city": "Zürich 😀"}'], ["now", "{}"]],
        "finish_reason": "tool_calls",
        "reasoning_tokens": 0,
    }
    message = client.chat.completions.create(**says(TWO_CALLS.removeprefix("I look."), tools=TOOLS)).choices[0].message
    assert message.content is None
    assert len({call.id for call in message.tool_calls or ()}) == 2


@cpu
def test_the_async_client_gets_the_same(server: Server) -> None:
    async def ask() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="-") as client:
            whole = await client.chat.completions.create(**says(TWO_CALLS, tools=TOOLS))
            deltas = await client.chat.completions.create(**says(TWO_CALLS, tools=TOOLS), stream=True)
            text = [
                call.function.arguments or ""
                async for chunk in deltas
                for call in chunk.choices[0].delta.tool_calls or ()
                if call.function and call.index == 0
            ]
            return [plain(whole)["calls"][0][1], "".join(text), len(text) > 10]

    assert asyncio.run(ask()) == ['{"city": "Zürich 😀"}', '{"city": "Zürich 😀"}', True]


@cpu
def test_choices_are_read_apart(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**says(TWO_CALLS, tools=TOOLS, n=3))
    assert [len(choice.message.tool_calls or ()) for choice in answer.choices] == [2, 2, 2]
    assert {choice.finish_reason for choice in answer.choices} == {"tool_calls"}


@cpu
def test_without_tools_or_with_none_chosen_a_call_is_text(client: openai.OpenAI) -> None:
    for fields in ({}, {"tools": TOOLS, "tool_choice": "none"}, {"tools": []}):
        answer = both(client, says(TWO_CALLS, **fields))
        assert (answer["content"], answer["calls"], answer["finish_reason"]) == (TWO_CALLS, [], "stop")


@cpu
def test_one_call_at_most_without_parallel_calls(client: openai.OpenAI) -> None:
    answer = both(client, says(TWO_CALLS, tools=TOOLS, parallel_tool_calls=False))
    assert (answer["calls"], answer["finish_reason"]) == ([["get_weather", '{"city": "Zürich 😀"}']], "tool_calls")


@cpu
def test_a_call_that_is_cut_off_is_no_finished_one(client: openai.OpenAI) -> None:
    short = both(client, says(TWO_CALLS, tools=TOOLS, max_tokens=len(TWO_CALLS.partition("Z")[0]) + 1))
    assert (short["calls"], short["finish_reason"]) == ([["get_weather", '{"city": "Z']], "length")
    stopped = both(client, says(TWO_CALLS, tools=TOOLS, stop="rich"))
    assert (stopped["calls"], stopped["finish_reason"]) == ([["get_weather", '{"city": "Zü']], "stop")
    between = both(client, says(TWO_CALLS, tools=TOOLS, stop="\n</tool_call>"))
    assert (between["calls"], between["finish_reason"]) == ([["get_weather", '{"city": "Zürich 😀"}']], "tool_calls")


@cpu
def test_reasoning_is_apart_from_the_answer_and_its_tokens_are_counted(client: openai.OpenAI) -> None:
    thought, answer = "<think>\nWhy é?\n</think>", "\n\nSo."
    counted = len(thought.encode())
    whole = both(client, says(thought + answer))
    assert (whole["reasoning_content"], whole["content"], whole["reasoning_tokens"]) == ("Why é?", "So.", counted)
    assert both(client, says("So."))["reasoning_tokens"] == 0
    for field in ("separate_reasoning", "include_reasoning"):
        kept = both(client, says(thought + answer, **{field: False}))
        assert (kept["reasoning_content"], kept["content"]) == ("", thought + answer)
        assert kept["reasoning_tokens"] == counted
    cut = both(client, says(thought + answer, max_tokens=9))
    assert (cut["reasoning_content"], cut["content"], cut["reasoning_tokens"]) == ("W", "", 9)
    message = client.chat.completions.create(**says(thought + answer)).choices[0].message
    assert message.to_dict()["reasoning"] == "Why é?"


@cpu
def test_a_prompt_that_opens_or_closes_the_reasoning_is_seen(client: openai.OpenAI) -> None:
    text = "Why?</think>So."
    opened = both(client, says(text, thinks=True))
    assert (opened["reasoning_content"], opened["content"], opened["reasoning_tokens"]) == ("Why?", "So.", 12)
    for fields in ({"thinks": False}, {}):
        closed = both(client, says(text, **fields))
        assert (closed["reasoning_content"], closed["content"], closed["reasoning_tokens"]) == ("", text, 0)


@cpu
def test_calls_and_stop_strings_after_the_reasoning(client: openai.OpenAI) -> None:
    text = "<think>I could <tool_call>.</think>\n" + TWO_CALLS
    answer = both(client, says(text, tools=TOOLS))
    assert (answer["reasoning_content"], answer["content"]) == ("I could <tool_call>.", "I look.")
    assert ([name for name, _ in answer["calls"]], answer["finish_reason"]) == (["get_weather", "now"], "tool_calls")
    stopped = both(client, says(text, tools=TOOLS, stop=["look"]))
    assert (stopped["reasoning_content"], stopped["content"]) == ("I could <tool_call>.", "I ")
    early = both(client, says(text, tools=TOOLS, stop=["could"]))
    assert (early["reasoning_content"], early["content"], early["finish_reason"]) == ("I ", "", "stop")
    kept = both(client, says(text, tools=TOOLS, separate_reasoning=False))
    assert (kept["content"], len(kept["calls"])) == ("<think>I could <tool_call>.</think>\nI look.", 2)


@cpu
def test_logprobs_are_those_of_the_whole_text(client: openai.OpenAI) -> None:
    for extra in ({"tools": TOOLS}, {}):
        body = says("<think>Why?</think>" + TWO_CALLS, logprobs=True, **extra)
        answer = client.chat.completions.create(**body).choices[0].logprobs
        told = [
            token
            for chunk in client.chat.completions.create(**body, stream=True)
            if chunk.choices[0].logprobs
            for token in chunk.choices[0].logprobs.content or ()
        ]
        assert answer is not None
        assert told == answer.content
        assert b"".join(bytes(token.bytes or ()) for token in told).decode() == "<think>Why?</think>" + TWO_CALLS


@cpu
def test_calls_and_results_go_back_into_the_prompt(server: Server) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    messages = [
        *USER,
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "audio": None},
        {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
    ]
    told = server.post("/v1/chat/completions", messages=messages, tools=TOOLS, max_tokens=600).json()
    text = told["choices"][0]["message"]["content"]
    assert text.startswith("user: hi")
    assert "tool: noon" in text
    listed = json.loads(text.partition("tools: ")[2].partition("assistant: ")[0])
    assert listed == TOOLS, "as the client wrote them"


@cpu
def test_a_prompt_with_tools_can_be_counted_before_it_is_sent(server: Server, client: openai.OpenAI) -> None:
    counted = server.post("/tokenize", messages=USER, tools=TOOLS).json()["count"]
    used = client.chat.completions.create(model="tiny", messages=USER, tools=TOOLS, max_tokens=1).usage
    assert used is not None
    assert used.prompt_tokens == counted > server.post("/tokenize", messages=USER).json()["count"]
    error = server.post("/tokenize", messages=USER, tools=[WEATHER, WEATHER]).json()["error"]
    assert (error["param"], error["code"]) == ("tools", "invalid_value")


@cpu
def test_the_pages_curl_lines_work(server: Server) -> None:
    page = (Path(__file__).resolve().parents[3] / "runtime" / "TOOLS.md").read_text()
    lines = re.findall(r"^curl .*?}'$", page, re.MULTILINE | re.DOTALL)
    assert len(lines) == page.count("curl ") == 2
    for line in lines:
        command = line.replace("localhost:1919", server.url.removeprefix("http://")).replace('"qwen"', '"tiny"')
        command = command.replace('"model"', '"max_tokens": 9, "model"')
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
        assert json.loads(done.stdout)["choices"][0]["finish_reason"] == "length", done.stdout


PIECES = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    '{"name": "now", "arguments": {"a": ',
    '"é😀"',
    "}}",
    "\n",
]
SAID = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=9).map("".join)


@cpu
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    text=SAID.filter(lambda text: not {"\x02", "\x03"} & set(text)),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "tools": st.just(TOOLS),
            "parallel_tool_calls": st.booleans(),
            "stop": st.sampled_from(["</", "now", "\n"]),
            "max_tokens": st.integers(1, 60),
            "separate_reasoning": st.booleans(),
            "thinks": st.booleans(),
        },
    ),
)
def test_whatever_the_model_says_the_stream_says_the_same(
    client: openai.OpenAI, text: str, fields: dict[str, Any]
) -> None:
    answer = both(client, says(text, **fields))
    if not answer["calls"] and not fields.keys() & {"stop", "max_tokens"} and fields.get("separate_reasoning") is False:
        assert answer["content"] == text


NAMED: Any = {"type": "function", "function": {"name": "now"}}
NESTED: Any = functools.reduce(lambda inner, _: {"properties": inner}, range(120), {})
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [], "tool_choice": NAMED}, "tool_choice"),
    ({"tools": [WEATHER, WEATHER]}, "tools"),
    ({"tools": [tool(f"f{i}") for i in range(129)]}, "tools"),
    ({"tools": [tool("f", description="x" * 300_000)]}, "tools"),
    ({"tools": [tool("two words")]}, "tools.0.function.name"),
    ({"tools": [{"type": "function"}]}, "tools.0.function"),
    ({"tools": [{"type": "retrieval", "function": {"name": "f"}}]}, "tools.0.type"),
    ({"tools": [tool("f", properties=[])]}, "tools.0.function.parameters"),
    ({"tools": [tool("f", properties={"a": {"type": "integr"}})]}, "tools.0.function.parameters"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]},
     "tools.0.function.parameters"),
    ({"tools": [tool("f", properties=NESTED)]}, "tools.0.function.parameters"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": NESTED}}]}]},
     "messages.0.tool_calls.0.function.arguments"),
    ({"tools": [WEATHER], "parallel_tool_calls": "yes"}, "parallel_tool_calls"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
     "messages.0.tool_calls.0.function.arguments"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}, "messages.0.tool_calls.0.function"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param"), WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, fields: dict[str, Any], param: str) -> None:
    front = FrontEnd(tmp_path, tool_call_parser="hermes")
    answer = front.ask("POST", "/v1/chat/completions", {"model": "tiny", "messages": USER} | fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, "invalid_value"), error


def test_a_model_without_a_format_of_calls_refuses_tools(tmp_path: Path) -> None:
    for args in ({}, {"tool_call_parser": "none"}):
        front = FrontEnd(tmp_path, **args)
        answer = front.ask("POST", "/v1/chat/completions", {"messages": USER, "tools": TOOLS})
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["code"]) == (400, "tools", "unsupported_parameter")
        assert "--tool-call-parser" in error["message"]
        assert front.ask("POST", "/v1/chat/completions", {"messages": USER, "tools": []}).status_code == 200


def test_no_schema_makes_the_server_fetch_anything(tmp_path: Path) -> None:
    front = FrontEnd(tmp_path, tool_call_parser="hermes")
    schema = {"$schema": "http://127.0.0.1:9/schema", "$ref": "http://127.0.0.1:9/other"}
    answer = front.ask("POST", "/v1/chat/completions", {"messages": USER, "tools": [tool("f", **schema)]})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({}, ("hermes", "qwen3")),
        ({"tool_call_parser": "none", "reasoning_parser": "none"}, (None, None)),
        ({"tool_call_parser": "llama3", "reasoning_parser": "deepseek-r1"}, ("llama3", "deepseek-r1")),
    ],
)
def test_the_template_chooses_the_parsers_unless_the_flags_do(
    tmp_path: Path, args: Any, told: tuple[str | None, str | None]
) -> None:
    front = FrontEnd(tmp_path, Dialect("hermes", "qwen3"), **args)
    info = front.ask("GET", "/server_info").json()
    assert (info["toolCallParser"], info["reasoningParser"]) == told
