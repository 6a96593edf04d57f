"""Logprobs as the official client sees them, around the fake scheduler: whole, streamed, cut by a stop string."""

import math
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from minisgl.errors import RequestError
from minisgl.messages import Scored
from minisgl.server.logprobs import LOWEST, completion_logprobs, text_of
from minisgl.server.openai import ChatRequest, CompletionRequest, read
from support.server import Server, running
from support.words import save_words

HALF = -math.log(2)
USER: Any = [{"role": "user", "content": "é"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(save_words(tmp_path_factory.mktemp("model"))) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as ready:
        yield ready


@pytest.mark.cpu
def test_a_chat_tells_each_token_with_its_bytes_and_rivals(client: openai.OpenAI) -> None:
    choice = client.chat.completions.create(
        model="tiny", messages=USER, max_tokens=8, logprobs=True, top_logprobs=2
    ).choices[0]
    assert choice.message.content == "user: é"
    assert choice.logprobs is not None
    content = choice.logprobs.content
    assert content is not None
    assert b"".join(bytes(token.bytes or ()) for token in content).decode() == choice.message.content
    assert [token.token for token in content][-2:] == ["bytes:\\xc3", "bytes:\\xa9"]
    assert [token.logprob for token in content] == [pytest.approx(HALF)] * 8
    assert [(top.token, top.logprob) for top in content[0].top_logprobs] == [
        ("u", pytest.approx(HALF)),
        ("v", pytest.approx(2 * HALF)),
    ]


@pytest.mark.cpu
@pytest.mark.parametrize("stop", [None, ["r: "], [": \u00e9"]], ids=str)
def test_a_streamed_chat_tells_the_same(client: openai.OpenAI, stop: Any) -> None:
    body: Any = {"model": "tiny", "messages": USER, "max_tokens": 8, "logprobs": True, "top_logprobs": 1, "stop": stop}
    plain = client.chat.completions.create(**body).choices[0]
    assert plain.logprobs is not None
    chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**body, stream=True)]
    told = [token for chunk in chunks if chunk.logprobs for token in chunk.logprobs.content or ()]
    assert told == plain.logprobs.content
    assert "".join(chunk.delta.content or "" for chunk in chunks) == plain.message.content
    assert b"".join(bytes(token.bytes or ()) for token in told).decode() == plain.message.content


@pytest.mark.cpu
@pytest.mark.parametrize("count", [0, 3, 20])
def test_a_completion_tells_columns(client: openai.OpenAI, count: int) -> None:
    body: Any = {"model": "tiny", "prompt": "héy", "max_tokens": 4, "logprobs": count}
    choice = client.completions.create(**body).choices[0]
    columns = choice.logprobs
    assert columns is not None
    assert columns.tokens == ["h", "bytes:\\xc3", "bytes:\\xa9", "y"]
    assert columns.text_offset == [0, 1, 1, 2]
    assert columns.token_logprobs == [pytest.approx(HALF)] * 4
    assert columns.top_logprobs is not None
    assert [len(tops) for tops in columns.top_logprobs] == [max(1, count)] * 4, "the chosen one is always there"
    chunks = [chunk.choices[0] for chunk in client.completions.create(**body, stream=True)]
    streamed = [chunk.logprobs for chunk in chunks if chunk.logprobs]
    assert [token for part in streamed for token in part.tokens or ()] == columns.tokens
    assert [offset for part in streamed for offset in part.text_offset or ()] == columns.text_offset


@pytest.mark.cpu
def test_a_chat_tells_its_prompt_as_vllm_does(server: Server) -> None:
    answer = server.post("/v1/chat/completions", messages=USER, max_tokens=1, prompt_logprobs=2, return_token_ids=True)
    first, *told = answer.json()["prompt_logprobs"]
    ids = answer.json()["prompt_token_ids"]
    assert first is None
    assert len(ids) == len(told) + 1 == answer.json()["usage"]["prompt_tokens"]
    for token, entries in zip(ids[1:], told, strict=True):
        assert entries[str(token)] == {
            "logprob": pytest.approx(HALF),
            "rank": 1,
            "decoded_token": "<|end|>" if token == 256 else text_of(bytes([token])),
        }
        assert len(entries) == 3 if token == 256 else 2


@pytest.mark.cpu
def test_nobody_gets_what_he_did_not_ask_for(client: openai.OpenAI) -> None:
    assert client.completions.create(model="tiny", prompt="a", max_tokens=1).choices[0].logprobs is None
    assert client.chat.completions.create(model="tiny", messages=USER, max_tokens=1).choices[0].logprobs is None


def test_the_two_endpoints_ask_in_two_ways() -> None:
    def chat(**fields: Any) -> int | None:
        return read(ChatRequest, {"messages": USER, **fields}).sampling(1).logprobs

    assert (chat(), chat(logprobs=False, top_logprobs=0), chat(logprobs=True)) == (None, None, 0)
    assert chat(logprobs=True, top_logprobs=20) == 20
    assert read(CompletionRequest, {"prompt": "x", "logprobs": 5}).sampling(1).logprobs == 5


@pytest.mark.parametrize(
    ("kind", "fields", "param"),
    [
        (ChatRequest, {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        (ChatRequest, {"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        (ChatRequest, {"top_logprobs": 2}, "top_logprobs"),
        (ChatRequest, {"logprobs": 3}, "logprobs"),
        (CompletionRequest, {"logprobs": True}, "logprobs"),
        (CompletionRequest, {"logprobs": 21}, "logprobs"),
    ],
    ids=str,
)
def test_a_wrong_question_names_its_field(kind: Any, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(kind, {"messages": USER, "prompt": "x", **fields})
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_value", param)


def test_probability_zero_is_a_number_in_json() -> None:
    scored = Scored(b"a", -math.inf, ((b"b", -0.1), (b"b", -3.0)), 0)
    columns = completion_logprobs([scored])
    assert columns["token_logprobs"] == [LOWEST]
    assert columns["top_logprobs"] == [{"b": -0.1, "a": LOWEST}], "of two tokens with one text, the likelier"
    assert text_of(b"\xf0\x9f") == "bytes:\\xf0\\x9f"
