"""What a client of a running server sees: answers, streams, usage, errors, probes."""

import asyncio
import json
import math
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.serving import Serving

pytestmark = pytest.mark.cpu

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY: Any = {"model": "m", "messages": QUESTION, "temperature": 0, "max_tokens": 24}


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with Serving(
        "--max-seq-len-override=512", "--num-tokens=4096", "--silent-output", "--max-body-bytes=65536"
    ) as ready:
        yield ready
        assert ready.end() == 0, ready.log


@pytest.fixture(scope="module")
def client(server: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as ready:
        yield ready


def post(server: Serving, body: Any, path: str = "/v1/chat/completions", **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(
        server.url + path, content=content, headers={"Content-Type": "application/json", **headers}, timeout=30
    )


def test_the_official_client_gets_its_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**GREEDY)
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (37, 8, 45)


def test_a_stream_says_the_same_as_the_plain_answer_and_ends_with_usage(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(**GREEDY, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "The capital of France is Paris."
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8


def test_many_async_streams_get_what_each_gets_alone(server: Serving, client: openai.OpenAI) -> None:
    questions = [f"Name a city in {country}." for country in ("Italy", "Spain", "Japan", "Chile", "Kenya", "Norway")]

    def body(question: str) -> Any:
        return {**GREEDY, "messages": [{"role": "user", "content": question}], "max_tokens": 12}

    alone = [client.chat.completions.create(**body(question)).choices[0].message.content for question in questions]

    async def together() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="-") as many:

            async def one(question: str) -> str:
                stream = await many.chat.completions.create(**body(question), stream=True)
                return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

            return await asyncio.gather(*map(one, questions))

    assert asyncio.run(together()) == alone


def test_completions_take_text_and_token_ids(client: openai.OpenAI) -> None:
    text = client.completions.create(model="m", prompt="1, 2, 3, 4,", temperature=0, max_tokens=4)
    assert text.choices[0].text.startswith(" 5")
    assert text.choices[0].finish_reason == "length"
    ids: Any = [33, 28, 216, 34]
    assert client.completions.create(model="m", prompt=ids, temperature=0, max_tokens=2).usage is not None


def test_a_stop_string_is_cut_off_and_ends_the_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**GREEDY, stop=[" is Par"])
    assert answer.choices[0].message.content == "The capital of France"
    assert answer.choices[0].finish_reason == "stop"


def test_the_prefix_cache_is_told_in_usage(client: openai.OpenAI) -> None:
    client.chat.completions.create(**GREEDY)
    usage = client.chat.completions.create(**GREEDY).usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 32


def test_logprobs_are_the_samplers(client: openai.OpenAI) -> None:
    asked: Any = {**GREEDY, "logprobs": True, "top_logprobs": 3}
    choice = client.chat.completions.create(**asked).choices[0]
    assert choice.logprobs is not None
    content = choice.logprobs.content or []
    assert "".join(token.token for token in content) == "The capital of France is Paris."
    for token in content:
        assert token.token == token.top_logprobs[0].token, "greedy"
        assert token.logprob == token.top_logprobs[0].logprob <= 0
        assert sum(math.exp(top.logprob) for top in token.top_logprobs) <= 1.0001
    banned = client.chat.completions.create(**asked, logit_bias={"504": -100}).choices[0].logprobs  # "The"
    assert banned is not None
    assert banned.content != content, "of what was sampled, after biases"
    chunks = client.chat.completions.create(**asked, stream=True)
    told = [token for c in chunks for choice in c.choices if choice.logprobs for token in choice.logprobs.content or ()]
    assert [(token.token, round(token.logprob, 3)) for token in told] == [
        (token.token, round(token.logprob, 3)) for token in content
    ]


def test_choices_share_their_prompts_pages_and_are_those_of_their_seeds(server: Serving, client: openai.OpenAI) -> None:
    def hits() -> float:
        lines = server.get("/metrics")[1].splitlines()
        return next(
            float(line.rpartition(" ")[2]) for line in lines if line.startswith("minisgl_prefix_cache_hits_total{")
        )

    prompt: Any = [*range(1000, 1100)]
    body: Any = {"model": "m", "prompt": prompt, "max_tokens": 6, "temperature": 1.5}
    before = hits()
    texts = [choice.text for choice in client.completions.create(**body, n=4, seed=7).choices]
    for _ in range(20):
        if hits() >= before + 3 * 96:
            break
        time.sleep(0.1)  # the scheduler tells it twice a second
    assert hits() == before + 3 * 96
    assert len(set(texts)) > 1
    assert [client.completions.create(**body, seed=7 + i).choices[0].text for i in range(4)] == texts


def test_no_end_token_before_min_tokens(client: openai.OpenAI) -> None:
    plain = client.chat.completions.create(**GREEDY)
    longer = client.chat.completions.create(**GREEDY, extra_body={"min_tokens": 20})
    assert plain.usage is not None
    assert longer.usage is not None
    assert plain.usage.completion_tokens == 8
    assert longer.usage.completion_tokens >= 20
    assert (longer.choices[0].message.content or "").startswith(plain.choices[0].message.content or "-")


def test_the_cache_is_flushed_and_salted(server: Serving, client: openai.OpenAI) -> None:
    def cached(**salt: str) -> int | None:
        usage = client.chat.completions.create(**GREEDY, extra_body=salt).usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        return usage.prompt_tokens_details.cached_tokens

    cached()
    assert (cached(), cached(cache_salt="a"), cached(cache_salt="a"), cached(cache_salt="b")) == (32, 0, 32, 0)
    assert post(server, b"", "/flush_cache").status_code == 200
    assert (cached(), cached(), cached(cache_salt="a")) == (0, 32, 0)
    assert server.get("/health_generate")[0] == 200


def test_the_context_has_an_exact_end(server: Serving) -> None:
    def status(prompt_len: int, max_tokens: int) -> tuple[int, Any]:
        body = {"model": "m", "prompt": [40] * prompt_len, "max_tokens": max_tokens, "temperature": 0}
        answer = post(server, body, "/v1/completions")
        return answer.status_code, answer.json().get("error", {}).get("code")

    assert status(511, 1) == (200, None)
    assert status(512, 1) == (400, "context_length_exceeded")
    assert status(510, 3) == (400, "context_length_exceeded")


WRONG = [
    ({"model": "other"}, 404, "model_not_found", "model"),
    ({"messages": []}, 400, None, "messages"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, 400, None, None),
    ({"max_tokens": -1}, 400, None, "max_tokens"),
    ({"max_tokens": 2**63}, 400, None, None),
    ({"temperature": -0.5}, 400, None, "temperature"),
    ({"temperature": "hot"}, 400, None, "temperature"),
    ({"top_p": 1.5}, 400, None, "top_p"),
    ({"top_k": -2}, 400, None, "top_k"),
    ({"stop": ["x"] * 1000}, 400, None, "stop"),
    ({"seed": 2**65}, 400, None, "seed"),
    ({"presence_penalty": 3}, 400, "invalid_value", "presence_penalty"),
    ({"logit_bias": {"49152": 1}}, 400, "invalid_value", "logit_bias"),
    ({"priority": 2000}, 400, "invalid_value", "priority"),
    ({"n": 129}, 400, "invalid_value", "n"),
    ({"n": 1, "best_of": 2}, 400, "unsupported_parameter", "best_of"),
    ({"min_tokens": 25}, 400, "invalid_value", "min_tokens"),
    ({"tools": [{"type": "function"}]}, 400, "invalid_value", "tools"),
]


@pytest.mark.parametrize(("change", "status", "code", "param"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_request_is_told_what_is_wrong(
    server: Serving, change: Any, status: int, code: str | None, param: str | None
) -> None:
    answer = post(server, {**GREEDY, **change})
    error = answer.json()["error"]
    assert (answer.status_code, set(error)) == (status, {"message", "type", "param", "code"})
    assert error["message"]
    assert code is None or error["code"] == code
    assert param is None or error["param"].startswith(param)


BROKEN = [
    b"",
    b"{",
    b"[]",
    b'{"model": "m", "messages": "x"}',
    b'{"model": "m", "messages": [{"role": "user", "content": "\xff"}]}',
    b'{"model": "m", "temperature": NaN, "messages": [{"role": "user", "content": "x"}]}',
    b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}',
    b"[" * 30_000,
]


@pytest.mark.parametrize("body", BROKEN, ids=lambda body: repr(body[-30:]))
def test_a_body_that_makes_no_sense_is_a_client_error(server: Serving, body: bytes) -> None:
    answer = post(server, body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


def test_a_body_that_is_too_large_is_refused_whole_or_in_pieces(server: Serving) -> None:
    assert post(server, b" " * 70_000).status_code == 413
    pieces = (b" " * 1000 for _ in range(100))
    assert httpx.post(f"{server.url}/v1/chat/completions", content=pieces, timeout=30).status_code == 413


@pytest.mark.parametrize("path", ["/nothing", "/v1/models/other", "/v1/chat/completions"])
def test_every_error_is_an_openai_error(server: Serving, path: str) -> None:
    status, body = server.get(path)
    assert status in (404, 405)
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.lists(st.integers(), max_size=3)
    | st.dictionaries(st.integers(-1, 50_000).map(str) | st.text(max_size=3), st.floats(-100, 100), max_size=3)
)
FIELDS = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "stream",
    "max_tokens",
    "n",
    "stop_token_ids",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "priority",
    "user",
]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(change=st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=3))
def test_no_value_of_any_field_harms_the_server(server: Serving, change: dict[str, Any]) -> None:
    asked = {**GREEDY, "max_tokens": 1, **change}
    if asked["max_tokens"] is None or not isinstance(asked["max_tokens"], int) or asked["max_tokens"] > 4:
        asked["max_tokens"] = 1
    answer = post(server, asked)
    assert answer.status_code in (200, 400), answer.text


def test_probes_and_facts(server: Serving) -> None:
    for path in ("/livez", "/readyz", "/health", "/startupz", "/version", "/v1/models", "/v1/models/m"):
        assert server.get(path)[0] == 200, path
    facts = json.loads(server.get("/server_info")[1])
    assert facts["engine"]["contextLength"] == 512
    assert facts["engine"]["kvCache"]["tokens"] == 4096
    assert facts["engine"]["kvCache"]["limitedBy"] == "numTokens"
    launch = facts["launchArgs"]
    assert (launch["numTokens"], launch["silentOutput"], launch["memoryRatio"]) == (4096, True, 0.9)


def test_metrics_count_what_clients_got(server: Serving, client: openai.OpenAI) -> None:
    def tokens() -> float:
        lines = server.get("/metrics")[1].splitlines()
        return next(
            float(line.rpartition(" ")[2]) for line in lines if line.startswith("minisgl_generation_tokens_total{")
        )

    before = tokens()
    client.chat.completions.create(**GREEDY)
    assert tokens() - before == 8


def test_a_client_that_leaves_frees_its_place(server: Serving) -> None:
    long: Any = {**GREEDY, "max_tokens": 400, "ignore_eos": True, "stream": True}
    for _ in range(4):
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=long, timeout=30) as stream:
            next(stream.iter_lines())
    for _ in range(100):
        running = [
            line for line in server.get("/metrics")[1].splitlines() if line.startswith("minisgl_requests_running{")
        ]
        if running[0].endswith(" 0.0"):
            return
    raise AssertionError(running)


def test_the_only_listener_is_the_http_port(server: Serving) -> None:
    pids = [server.process.pid, *server.tree().values()]
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = str(link.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                listening.add(int(fields[1].rpartition(":")[2], 16))
    assert listening == {server.port}


def test_any_unicode_text_goes_through_unharmed(server: Serving, client: openai.OpenAI) -> None:
    random.seed(1)
    for _ in range(4):
        text = "".join(
            chr(random.choice([*range(32, 127), *range(0x4E00, 0x4E40), *range(0x1F600, 0x1F640)])) for _ in range(20)
        )
        messages: Any = [{"role": "user", "content": f"Repeat: {text}"}]
        plain = client.chat.completions.create(**{**GREEDY, "messages": messages})
        stream = client.chat.completions.create(**{**GREEDY, "messages": messages}, stream=True)
        assert (
            "".join(c.choices[0].delta.content or "" for c in stream if c.choices) == plain.choices[0].message.content
        )


def test_the_timeline_of_the_start_is_in_the_log_and_in_the_metrics(server: Serving) -> None:
    told = re.findall(r"start process=(\S+) phase=(\S+) seconds=(\S+)$", server.log, re.MULTILINE)
    order = [phase for process, phase, _ in told if process == "scheduler-0"]
    assert order[-4:] == ["import", "weights", "kv-cache", "warm-up"]
    with httpx.Client(base_url=server.url) as client:
        metrics, info = client.get("/metrics").text, client.get("/server_info").json()
    found = re.findall(r'^minisgl_startup_seconds\{.*phase="([^"]+)"\} (\S+)$', metrics, re.MULTILINE)
    ends = {phase: float(end) for phase, end in found}
    assert ends == info["startupSeconds"]
    assert {phase for _, phase, _ in told if phase != "frontend"} <= ends.keys()
    assert [phase for phase in sorted(ends, key=lambda phase: ends[phase]) if phase in order] == order
    assert max(ends, key=lambda phase: ends[phase]) == "first-answer"
