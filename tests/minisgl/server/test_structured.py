"""Answers of a model with random weights that are held to a format: each of them has it, or was cut off."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field

from support.server import TINY, Server, running
from support.words import save_dummy

pytestmark = pytest.mark.cpu

ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "Tell me."}], "max_tokens": 400, "temperature": 1}


@pytest.fixture(scope="module", params=[[], ["--overlap=on"], ["--tp=2", "--overlap=on"]], ids=" ".join)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = save_dummy(tmp_path_factory.mktemp("model"))
    with running(folder, *TINY, *request.param, "--reasoning-parser=none", module="minisgl") as it:
        yield it
        it.wait_for(lambda: it.metric("minisgl_requests_running") == 0, 5)
        assert "Traceback" not in it.log


def ask(server: Server, **more: Any) -> tuple[str, str]:
    answer = server.client.post("/v1/chat/completions", json=ASKED | more, timeout=120)
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    return choice["message"]["content"], choice["finish_reason"]


def named(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}}


LEAVES = st.sampled_from(
    [
        {"type": "boolean"},
        {"type": "null"},
        {"type": "integer", "minimum": -5, "maximum": 300},
        {"enum": ["rot", 'a "b"', 7, None, "é😀"]},
        {"type": "string", "maxLength": 5},
        {"type": "string", "pattern": "^[a-c]{1,3}$"},
        {"const": {"a": [1, 2]}},
    ]
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(lambda item: {"type": "array", "items": item, "maxItems": 2}, inner)
        | st.builds(lambda one, other: {"anyOf": [one, other]}, inner, inner)
        | st.dictionaries(st.sampled_from(["a", "b c", 'd"']), inner, max_size=3).map(
            lambda fields: {
                "type": "object",
                "properties": fields,
                "required": sorted(fields)[:1],
                "additionalProperties": False,
            }
        )
    ),
    max_leaves=4,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schema=SCHEMAS, seed=st.integers(0, 1000))
def test_every_answer_follows_its_schema(server: Server, schema: dict[str, Any], seed: int) -> None:
    text, reason = ask(server, response_format=named(schema), seed=seed)
    if reason != "length":
        assert reason == "stop"
        Draft202012Validator(schema).validate(json.loads(text))


WEATHER = {
    "type": "object",
    "properties": {
        "unit": {"enum": ["celsius", "kelvin"]},
        "degrees": {"type": "integer", "maximum": 99, "minimum": 0},
    },
    "required": ["unit", "degrees"],
    "additionalProperties": False,
}


def test_a_stream_alone_and_under_load_say_the_same(server: Server) -> None:
    asked: dict[str, Any] = {"response_format": named(WEATHER), "logprobs": True}
    alone = [ask(server, **asked, seed=seed) for seed in range(4)]
    assert len(set(alone)) > 1, "the seeds mean something"
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client:
        for seed, (text, _) in enumerate(alone):
            chunks = client.chat.completions.create(
                model="tiny", **ASKED, response_format=named(WEATHER), seed=seed, stream=True
            )
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    others = [{}, {"top_k": 5}, {"presence_penalty": 1.0}, {"response_format": {"type": "text"}}]
    with ThreadPoolExecutor(12) as pool:
        together = [pool.submit(ask, server, **asked, seed=seed) for seed in range(4)]
        for i in range(12):
            pool.submit(ask, server, **({"max_tokens": 40, "ignore_eos": True} | others[i % len(others)]))
        assert [each.result() for each in together] == alone


def test_each_choice_is_held(server: Server) -> None:
    answer = server.client.post("/v1/chat/completions", json=ASKED | {"n": 5, "response_format": named(WEATHER)})
    texts = [choice["message"]["content"] for choice in answer.json()["choices"]]
    assert len(texts) == 5
    for text in texts:
        Draft202012Validator(WEATHER).validate(json.loads(text))


@pytest.mark.parametrize("more", [{"ignore_eos": True}, {"min_tokens": 30}, {"repetition_penalty": 2.0}, {"n": 2}])
def test_what_is_whole_ends_whatever_else_is_asked(server: Server, more: dict[str, Any]) -> None:
    answer = server.client.post("/v1/chat/completions", json=ASKED | more | {"response_format": named(WEATHER)})
    for choice in answer.json()["choices"]:
        assert choice["finish_reason"] == "stop"
        Draft202012Validator(WEATHER).validate(json.loads(choice["message"]["content"]))


@pytest.mark.parametrize(
    ("wanted", "pattern"),
    [
        ({"regex": "[a-f]{3}/[0-9]{2}"}, "[a-f]{3}/[0-9]{2}"),
        ({"choice": ["yes", 'no "never"']}, r'yes|no "never"'),
        ({"grammar": 'root ::= "on" | "off"'}, "on|off"),
        ({"grammar": 'start: "a" /[0-9]/'}, r"a\d"),
        ({"json": {"type": "integer", "minimum": 3, "maximum": 9}}, "[3-9]"),
    ],
)
def test_other_forms(server: Server, wanted: dict[str, Any], pattern: str) -> None:
    text, reason = ask(server, structured_outputs=wanted)
    assert (reason, bool(re.fullmatch(pattern, text))) == ("stop", True), text
    completion = server.client.post(
        "/v1/completions", json={"prompt": "x", "max_tokens": 50, "structured_outputs": wanted}
    )
    assert re.fullmatch(pattern, completion.json()["choices"][0]["text"])


class Light(BaseModel):
    """What the client wants."""

    colour: Literal["red", "green"]
    seconds: int = Field(ge=0, le=90)


def test_the_official_client_parses(server: Server) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client:
        answer = client.chat.completions.parse(model="tiny", **ASKED, response_format=Light)
        assert isinstance(answer.choices[0].message.parsed, Light)
        whole = client.chat.completions.create(model="tiny", **ASKED, response_format={"type": "json_object"})
    if whole.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(whole.choices[0].message.content or ""), dict)


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": named({"type": "colour"})}, "response_format"),
        ({"response_format": named({"type": "object", "not": {}})}, "response_format"),
        ({"response_format": named({"$ref": "http://example.com/schema"})}, "response_format"),
        ({"response_format": named(deep(200))}, "response_format"),
        ({"response_format": named({"$defs": {"n": {"$ref": "#/$defs/n"}}, "$ref": "#/$defs/n"})}, "response_format"),
        ({"response_format": named({"type": "string", "pattern": "(?=a)b"})}, "response_format"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs"),
        ({"structured_outputs": {"grammar": "start: nothing"}}, "structured_outputs"),
        ({"structured_outputs": {"choice": ["a"]}, "response_format": {"type": "json_object"}}, "structured_outputs"),
    ],
)
def test_what_cannot_be_held_is_told_before_anything_is_computed(
    server: Server, asked: dict[str, Any], param: str
) -> None:
    answer = server.client.post("/v1/chat/completions", json=ASKED | asked)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"].startswith(param)
    assert error["code"] == "invalid_value"


def test_an_abandoned_answer_leaves_nothing(server: Server) -> None:
    asked = ASKED | {"response_format": {"type": "json_object"}, "stream": True, "logit_bias": {"2": -100}}
    for _ in range(5):
        with server.client.stream("POST", "/v1/chat/completions", json=asked) as stream:
            next(stream.iter_lines())
    server.wait_for(lambda: server.metric("minisgl_requests_running") == 0, 10)


@pytest.mark.parametrize("parser", ["qwen3", "deepseek-r1"])
def test_a_model_that_thinks_may_think_first(parser: str, tmp_path: Path) -> None:
    """Reasoning is free; an answer without it is held from its first token on."""
    with running(save_dummy(tmp_path), *TINY, f"--reasoning-parser={parser}", module="minisgl") as server:
        plain = {"chat_template_kwargs": {"enable_thinking": False}, "response_format": named(WEATHER)}
        text, reason = ask(server, **plain)
        assert reason == "stop"
        Draft202012Validator(WEATHER).validate(json.loads(text))
        thinking = {"chat_template_kwargs": {"enable_thinking": True}, "response_format": named(WEATHER)}
        answer = server.client.post("/v1/chat/completions", json=ASKED | thinking | {"max_tokens": 100}).json()
        message = answer["choices"][0]["message"]
        assert message["reasoning_content"]  # random weights find no end to it
        assert message["content"] in (None, "")
