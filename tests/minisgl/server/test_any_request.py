"""Whatever a client sends: a whole answer or an error that says why; and its stream says the same, byte for byte.

Around the fake scheduler, over every field of both endpoints that generate. MINISGL_DRAWS says how many requests are
drawn in all; `make draws` draws 10,000.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from minisgl.server.generate import RENAMED, SAME, GenerateRequest
from minisgl.server.openai import NOT_SERVED, ChatRequest, CompletionRequest, Sampling
from support.server import Server, running
from support.words import CONTEXT, EOS, save_words

pytestmark = pytest.mark.cpu

DRAWS = int(os.environ.get("MINISGL_DRAWS", "450"))
FEW = 16  # tokens of an answer
TEXT = st.text(min_size=1, max_size=6) | st.sampled_from(["é😀", "abab", "<|end|>", "a\u0301", "\ufffd", "\0"])
IDS = st.lists(st.integers(0, EOS + 1), min_size=1, max_size=5)
SEEDS = st.integers(-5, 5) | st.sampled_from([2**63 - 1, -(2**63)])  # some others ask the fake for faults
NAMES = st.text("aZ0._:-", min_size=1, max_size=128)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
FORMATS: list[Any] = [
    {"type": "text"},
    {"type": "json_object"},
    {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
]
WELL: dict[str, st.SearchStrategy[Any]] = {
    "model": st.just("tiny"),
    "messages": st.lists(
        st.fixed_dictionaries(
            {
                "role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
                "content": TEXT
                | st.none()
                | st.lists(st.builds(lambda t: {"type": "text", "text": t}, TEXT), max_size=2),
            }
        ),
        min_size=1,
        max_size=3,
    ),
    "prompt": TEXT | st.lists(TEXT, min_size=1, max_size=3) | IDS | st.lists(IDS, min_size=1, max_size=3),
    "max_tokens": st.integers(0, FEW),
    "max_completion_tokens": st.integers(1, FEW),
    "min_tokens": st.integers(0, 4),
    "n": st.integers(1, 4),
    "best_of": st.integers(1, 2),
    "echo": st.booleans(),
    "logprobs": st.booleans() | st.integers(0, 3),
    "top_logprobs": st.integers(0, 20),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0.01, 1),
    "top_k": st.integers(-1, 300),
    "min_p": st.floats(0, 1),
    "seed": SEEDS,
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "repetition_penalty": st.floats(0.01, 2),
    "logit_bias": st.dictionaries(st.integers(0, EOS).map(str), st.floats(-100, 100), max_size=3),
    "priority": st.integers(-1000, 1000),
    "cache_salt": st.text(min_size=1, max_size=5),
    "stop": st.text("ab é😀", min_size=1, max_size=3) | st.lists(st.text("ab é😀", min_size=1, max_size=3), max_size=3),
    "stop_token_ids": st.lists(st.integers(0, EOS), max_size=3),
    "ignore_eos": st.booleans(),
    "skip_special_tokens": st.booleans(),
    "include_stop_str_in_output": st.booleans(),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans(), "continuous_usage_stats": st.booleans()}),
    "rid": NAMES,
    "request_id": NAMES,
    "prompt_logprobs": st.integers(0, 3),
    "return_token_ids": st.booleans(),
    "user": st.text(max_size=5),
    "metadata": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    "tools": st.sampled_from([[], [TOOL], [TOOL, TOOL]]),
    "tool_choice": st.sampled_from(["none", "auto", "required", {"type": "function", "function": {"name": "f"}}]),
    "parallel_tool_calls": st.booleans(),
    "separate_reasoning": st.booleans(),
    "include_reasoning": st.booleans(),
    "response_format": st.sampled_from(FORMATS),
    "structured_outputs": st.sampled_from([{"regex": "a+"}, {"choice": ["a", "b"]}, {"json": {}}, {"grammar": "x"}]),
    "chat_template_kwargs": st.dictionaries(st.text(max_size=4), st.booleans(), max_size=2),
}
NATIVE: dict[str, st.SearchStrategy[Any]] = {
    "max_new_tokens": st.integers(0, FEW),
    "min_new_tokens": st.integers(0, 4),
    "sampling_seed": SEEDS,
    "no_stop_trim": st.booleans(),
    "stream": st.booleans(),
    "return_logprob": st.booleans(),
    "logprob_start_len": st.integers(-1, 4),
    "top_logprobs_num": st.integers(0, 3),
    "return_text_in_logprobs": st.booleans(),
    "rid": NAMES,
}
FIELDS = sorted({*WELL, *NOT_SERVED})
WILD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers().filter(lambda number: not 500 < number < 700)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["\ud800", 2**65, "x" * 2000, [], {}, [[]], [None], {"type": "text"}]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """A few fields as they should be, and now and then one as it should not."""
    chosen = draw(st.lists(st.sampled_from(sorted(WELL)), max_size=6, unique=True))
    body = {name: draw(WELL[name]) for name in ("messages", "prompt", *chosen)}
    if draw(st.integers(0, 2)) == 0:
        body[draw(st.sampled_from(FIELDS))] = draw(WILD)
    for name in ("max_tokens", "max_completion_tokens"):  # long answers would show nothing new
        if isinstance(wanted := body.get(name), int) and FEW < wanted <= CONTEXT:
            body[name] = FEW
    return {"max_tokens": FEW} | {
        name: value for name, value in body.items() if name != "max_tokens" or value is not None
    }


@st.composite
def natives(draw: st.DrawFn) -> dict[str, Any]:
    """The same for /generate."""
    names = [name for name in (*SAME, *RENAMED) if name in NATIVE or name in WELL]
    chosen = draw(st.lists(st.sampled_from(names), max_size=4, unique=True))
    params = {name: draw(NATIVE[name] if name in NATIVE else WELL[name]) for name in chosen}
    prompt = draw(WELL["prompt"])
    is_text = isinstance(prompt, str) or isinstance(prompt[0], str)
    body = {"text" if is_text else "input_ids": prompt, "sampling_params": {"max_new_tokens": FEW} | params}
    more = draw(st.lists(st.sampled_from(sorted(GenerateRequest.model_fields)), max_size=3, unique=True))
    body |= {name: draw(NATIVE.get(name, WILD)) for name in more if name not in body}
    if draw(st.integers(0, 3)) == 0:
        body[draw(st.sampled_from(sorted(GenerateRequest.model_fields)))] = draw(WILD)
    return body


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(save_words(tmp_path_factory.mktemp("model"))) as server:
        yield server
        assert server.client.get("/livez").status_code == server.client.get("/readyz").status_code == 200
        server.wait_for(lambda: server.metric("minisgl_requests_running") == 0, 5)
        assert "Traceback" not in server.log
        assert server.metric('minisgl_dropped_messages_total{process="scheduler-0"}') == 0


def send(server: Server, path: str, body: dict[str, Any]) -> httpx.Response:
    content = json.dumps(body).encode()  # also NaN and lone surrogates
    return server.client.post(path, content=content, headers={"Content-Type": "application/json"})


def choices_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Text, logprobs and end of each choice of a whole answer."""
    return [
        {
            "text": choice["message"]["content"] if "message" in choice else choice["text"],
            "logprobs": columns_of(choice["logprobs"]),
            "end": (choice["finish_reason"], choice["stop_reason"]),
            "ids": choice.get("token_ids", []),
        }
        for choice in answer["choices"]
    ]


def columns_of(logprobs: dict[str, Any] | None) -> dict[str, list[Any]]:
    return {name: column for name, column in (logprobs or {}).items() if column}


def gather(stream: str) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The same of a stream, and its usage."""
    found: dict[int, dict[str, Any]] = {}
    used = None
    *events, done = [line.removeprefix("data: ") for line in stream.split("\n\n") if line]
    assert done == "[DONE]"
    for event in map(json.loads, events):
        used = event.get("usage") or used
        for choice in event["choices"]:
            whole = found.setdefault(choice["index"], {"text": "", "logprobs": {}, "end": None, "ids": []})
            assert whole["end"] is None, "nothing comes after the end"
            whole["text"] += choice["delta"].get("content", "") if "delta" in choice else choice["text"]
            whole["ids"] += choice.get("token_ids", [])
            for name, column in columns_of(choice["logprobs"]).items():
                whole["logprobs"].setdefault(name, []).extend(column)
            if choice["finish_reason"]:
                whole["end"] = choice["finish_reason"], choice["stop_reason"]
    return [found[index] for index in sorted(found)], used


def test_every_field_is_drawn() -> None:
    assert set(WELL) >= {*Sampling.model_fields, *ChatRequest.model_fields, *CompletionRequest.model_fields}


@settings(max_examples=DRAWS - DRAWS // 3, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(["/v1/chat/completions", "/v1/completions"]), body=bodies())
@example(path="/v1/completions", body={"prompt": "", "stream_options": float("nan")})
def test_an_answer_or_a_reason_and_the_stream_says_the_same(server: Server, path: str, body: dict[str, Any]) -> None:
    plain = send(server, path, body | {"stream": False})
    asked = body | {"stream": True, "stream_options": {"include_usage": True}}
    streamed = send(server, path, asked)
    if plain.status_code != 200:
        error = plain.json()["error"]
        assert (plain.status_code, set(error)) == (error_status(error), {"message", "type", "param", "code"})
        is_wrong_as_a_stream = body.get("prompt_logprobs") is not None
        # What the stream does not have: it brings options of its own.
        is_of_options = "stream_options" in (error["param"] or "")
        is_of_options |= error["code"] == "invalid_json" and "stream_options" in body
        if not is_of_options and not is_wrong_as_a_stream:
            other = streamed.json()["error"]  # where JSON is broken depends on what stands before
            assert (streamed.status_code, other["param"], other["code"]) == (
                plain.status_code,
                error["param"],
                error["code"],
            )
        return
    answer = plain.json()
    if body.get("prompt_logprobs") is not None:
        assert streamed.json()["error"]["param"] == "prompt_logprobs", "a stream has no place for them"
        return
    assert streamed.status_code == 200
    choices, used = gather(streamed.text)
    assert choices == choices_of(answer)
    assert used == answer["usage"]
    prompts = body["prompt"] if path == "/v1/completions" else None
    num_prompts = len(prompts) if isinstance(prompts, list) and not isinstance(prompts[0], int) else 1
    assert [choice["index"] for choice in answer["choices"]] == list(range(num_prompts * (body.get("n") or 1)))
    told = [choice["logprobs"].get("content", []) for choice in choices]
    for choice, tokens in zip(choices, told, strict=True):
        if tokens:
            assert b"".join(bytes(token["bytes"]) for token in tokens).decode(errors="replace") == choice["text"]


@settings(max_examples=DRAWS // 3, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(["/v1/chat/completions", "/v1/completions", "/generate"]), body=bodies() | natives() | WILD)
def test_as_it_comes(server: Server, path: str, body: Any) -> None:
    answer = send(server, path, body)
    if answer.status_code != 200:
        assert answer.status_code == error_status(answer.json()["error"])


def error_status(error: dict[str, Any]) -> int:
    """400, but for a model that is not served."""
    assert error["message"]
    return 404 if error["code"] == "model_not_found" else 400
