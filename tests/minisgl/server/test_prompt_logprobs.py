"""Logprobs of prompts over HTTP, from a real tiny model on one and on two ranks, beside transformers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from support.checkpoints import oracle_greedy, oracle_logits, save_tiny
from support.server import Server, running
from support.words import EOS, save_words

pytestmark = pytest.mark.cpu

PROMPT = "once upon a time é"
IDS = list(PROMPT.encode())
MANY = [[1] * 200] * 100


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("model")
    oracle = save_tiny(folder, "qwen3", vocab_size=EOS, eos_token_id=None)  # every token is a byte
    return save_words(folder), oracle


@pytest.fixture(scope="module", params=["", "--tp 2 --max-prefill-length 5"])
def server(request: pytest.FixtureRequest, model: tuple[Path, Any]) -> Iterator[Server]:
    arguments = ("--device=cpu", "--num-tokens=2048", "--page-size=4", *request.param.split())
    with running(model[0], *arguments, module="minisgl") as server:
        server.complete(PROMPT, max_tokens=1)  # the prefix cache is warm
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client:
        yield client


def own_logprobs(oracle: Any, ids: list[int]) -> list[float]:
    logprobs = oracle_logits(oracle, ids).log_softmax(-1)
    return [float(logprobs[at, token]) for at, token in enumerate(ids[1:])]


@pytest.mark.parametrize("max_tokens", [0, 1, 3])
@pytest.mark.parametrize("prompt", [PROMPT, IDS], ids=["text", "ids"])
def test_an_echo_tells_every_token(client: openai.OpenAI, model: Any, prompt: Any, max_tokens: int) -> None:
    answer = client.completions.create(
        model="tiny", prompt=prompt, max_tokens=max_tokens, temperature=0, echo=True, logprobs=1
    )
    columns: Any = answer.choices[0].logprobs
    ids = IDS + (oracle_greedy(model[1], IDS, max_tokens) if max_tokens else [])
    assert [len(column) for column in (columns.tokens, columns.top_logprobs, columns.text_offset)] == [len(ids)] * 3
    assert columns.token_logprobs[0] is None
    assert columns.top_logprobs[0] is None
    assert columns.token_logprobs[1:] == pytest.approx(own_logprobs(model[1], ids), abs=1e-4)
    best = oracle_logits(model[1], ids).log_softmax(-1).max(-1).values.tolist()
    assert [max(top.values()) for top in columns.top_logprobs[1:]] == pytest.approx(best[:-1], abs=1e-4)
    assert answer.choices[0].text.startswith(PROMPT)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(IDS), max_tokens)
    assert columns.text_offset[len(IDS) :][:1] == [len(PROMPT)][:max_tokens]


def test_a_list_of_prompts_and_choices_as_lm_eval_asks(client: openai.OpenAI, model: Any) -> None:
    prompts = [IDS, IDS[:5], IDS[3:12]]
    answer = client.completions.create(
        model="tiny", prompt=prompts, max_tokens=1, temperature=0, echo=True, logprobs=1, n=2, seed=1234
    )
    assert [choice.index for choice in answer.choices] == list(range(6))
    for choice in answer.choices:
        ids = prompts[choice.index // 2]
        assert choice.logprobs is not None
        assert choice.logprobs.token_logprobs is not None
        assert len(choice.logprobs.token_logprobs) == len(ids) + 1
        assert choice.logprobs.token_logprobs[1:-1] == pytest.approx(own_logprobs(model[1], ids), abs=1e-4)


def test_the_token_that_ends_the_answer_counts_too(client: openai.OpenAI, model: Any) -> None:
    end = oracle_greedy(model[1], IDS, 1)[0]
    asked: Any = {"model": "tiny", "prompt": IDS, "max_tokens": 1, "temperature": 0, "logprobs": 1}
    stopped = client.completions.create(**asked, echo=True, extra_body={"stop_token_ids": [end]}).choices[0]
    assert (stopped.text, stopped.finish_reason) == (PROMPT, "stop")
    assert stopped.logprobs is not None
    assert len(stopped.logprobs.tokens or ()) == len(IDS) + 1
    plain = client.completions.create(**asked, extra_body={"stop_token_ids": [end]}).choices[0]
    assert plain.logprobs is not None
    assert plain.logprobs.tokens == [], "without an echo, what is no text is not told"


def test_the_stream_says_the_same(client: openai.OpenAI) -> None:
    asked: Any = {"prompt": [IDS, IDS[:4]], "max_tokens": 3, "temperature": 0, "echo": True, "logprobs": 2, "n": 2}
    plain = client.completions.create(model="tiny", **asked)
    found: dict[int, dict[str, list[Any]]] = {}
    texts: dict[int, str] = {}
    for chunk in client.completions.create(model="tiny", stream=True, **asked):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            for name, column in (choice.logprobs.model_dump() if choice.logprobs else {}).items():
                found.setdefault(choice.index, {}).setdefault(name, []).extend(column)
    for choice in plain.choices:
        assert choice.logprobs is not None
        assert texts[choice.index] == choice.text
        told = choice.logprobs.model_dump()
        for name in ("tokens", "text_offset"):
            assert found[choice.index][name] == told[name]
        assert found[choice.index]["token_logprobs"][1:] == pytest.approx(told["token_logprobs"][1:], abs=1e-4)


def test_prompt_logprobs_are_told_as_vllm_tells_them(server: Server, model: Any) -> None:
    answer = server.complete(IDS, max_tokens=1, temperature=0, prompt_logprobs=2, n=2, return_token_ids=True).json()
    logprobs = oracle_logits(model[1], IDS).log_softmax(-1)
    for choice in answer["choices"]:
        assert choice["prompt_token_ids"] == IDS
        assert choice["token_ids"] == oracle_greedy(model[1], IDS, 1)
        first, *told = choice["prompt_logprobs"]
        assert first is None
        for row, token, entries in zip(logprobs[:-1], IDS[1:], told, strict=True):
            likeliest = {str(number) for number in row.topk(2).indices.tolist()}
            assert set(entries) == likeliest | {str(token)}
            own = entries[str(token)]
            assert own["logprob"] == pytest.approx(float(row[token]), abs=1e-4)
            assert own["rank"] == int((row > row[token]).sum()) + 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"prompt": [1] * 2048, "max_tokens": 0}, "prompt"),
    ],
    ids=["21", "-1", "stream", "max_tokens", "context"],
)
def test_what_cannot_be_told_is_refused(server: Server, fields: dict[str, Any], param: str) -> None:
    answer = server.post("/v1/completions", **{"prompt": "a", **fields})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/completions", {"prompt": MANY, "prompt_logprobs": 3}, "prompt_logprobs"),
        ("/v1/completions", {"prompt": MANY, "echo": True, "logprobs": 3}, "logprobs"),
        (
            "/generate",
            {"input_ids": MANY, "top_logprobs_num": 3, "sampling_params": {"max_new_tokens": 1}},
            "top_logprobs_num",
        ),
    ],
    ids=["prompt_logprobs", "echo", "generate"],
)
def test_more_than_can_be_told_is_refused(server: Server, path: str, fields: dict[str, Any], param: str) -> None:
    asked = fields | {"return_logprob": True, "logprob_start_len": 0}
    answer = server.post(path, **asked)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


# ---- /generate


def generate(server: Server, **fields: Any) -> httpx.Response:
    return server.post("/generate", **fields)


def test_generate_answers_in_sglangs_shape(server: Server, model: Any) -> None:
    params = {"max_new_tokens": 4, "temperature": 0}
    single = generate(server, text=PROMPT, sampling_params=params, rid="mine", return_logprob=True, logprob_start_len=0)
    assert single.headers["x-request-id"] == "mine"
    answer, meta = single.json(), single.json()["meta_info"]
    expected = oracle_greedy(model[1], IDS, 4)
    assert answer["output_ids"] == expected
    assert answer["text"] == bytes(expected).decode(errors="replace")
    assert (meta["id"], meta["prompt_tokens"], meta["completion_tokens"]) == ("mine", len(IDS), 4)
    assert meta["finish_reason"] == {"type": "length", "length": 4}
    assert [entry[1] for entry in meta["output_token_logprobs"]] == expected
    assert [entry[1] for entry in meta["input_token_logprobs"]] == IDS
    own = [entry[0] for entry in meta["input_token_logprobs"]]
    assert own[0] is None
    assert own[1:] == pytest.approx(own_logprobs(model[1], IDS), abs=1e-4)
    stopped = generate(server, input_ids=[IDS], sampling_params=params | {"stop_token_ids": expected[1:2]}).json()
    assert stopped[0]["output_ids"] == expected[:2]
    assert stopped[0]["meta_info"]["finish_reason"] == {"type": "stop", "matched": expected[1]}


def test_a_stream_of_generate_tells_the_text_so_far(server: Server) -> None:
    asked: dict[str, Any] = {"text": [PROMPT, "b"], "sampling_params": {"max_new_tokens": 5, "temperature": 0}}
    plain = generate(server, **asked).json()
    *events, done = [
        line.removeprefix("data: ") for line in generate(server, **asked, stream=True).text.split("\n\n")[:-1]
    ]
    assert done == "[DONE]"
    latest: dict[int, dict[str, Any]] = {}
    for event in map(json.loads, events):
        assert event["text"].startswith(latest.get(event["index"], {"text": ""})["text"])
        latest[event["index"]] = event
    assert [latest[i]["text"] for i in range(2)] == [answer["text"] for answer in plain]
    assert [latest[i]["output_ids"] for i in range(2)] == [answer["output_ids"] for answer in plain]
    assert latest[0]["meta_info"]["finish_reason"] == plain[0]["meta_info"]["finish_reason"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "text"),
        ({"text": "a", "input_ids": [1]}, "text"),
        ({"text": []}, "text"),
        ({"input_ids": [999]}, "input_ids"),
        ({"text": "a", "sampling_params": {"temperature": -1}}, "sampling_params.temperature"),
        ({"text": "a", "sampling_params": {"max_new_tokens": 99999}}, "text"),
        ({"text": "a", "sampling_params": {"regex": "a+"}}, "sampling_params.regex"),
        ({"text": "a", "rid": "a b"}, "rid"),
        ({"text": "a", "rid": "a", "request_id": "b"}, "rid"),
    ],
    ids=str,
)
def test_a_wrong_generate_names_its_field(server: Server, fields: dict[str, Any], param: str) -> None:
    answer = generate(server, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_every_chunk_tells_the_counts_so_far_if_asked(server: Server) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    text = server.complete(IDS, max_tokens=4, temperature=0, stream=True, stream_options=options).text
    used = [json.loads(line.removeprefix("data: "))["usage"] for line in text.split("\n\n")[:-2]]
    counts = [count["completion_tokens"] for count in used if count is not None]
    assert counts == sorted(counts)
    assert counts[-1] == 4
    assert {count["prompt_tokens"] for count in used if count is not None} == {len(IDS)}
    assert len(counts) >= len(used) - 1
