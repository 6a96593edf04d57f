"""/tokenize and /detokenize as a client of vLLM knows them, around the fake scheduler."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.server import Server, running
from support.words import CONTEXT, EOS, save_words

pytestmark = pytest.mark.cpu
USER = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(save_words(tmp_path_factory.mktemp("model")), "--num-tokenizer=2") as server:
        yield server


def test_a_text_becomes_ids(server: Server) -> None:
    answer = server.post("/tokenize", model="tiny", prompt="hé<|end|>").json()
    assert answer == {"count": 4, "max_model_len": CONTEXT, "tokens": [104, 195, 169, EOS], "token_strs": None}
    pieces = server.post("/tokenize", prompt="h <|end|>", return_token_strs=True).json()["token_strs"]
    assert pieces == ["h", "Ġ", "<|end|>"]
    assert server.post("/tokenize", prompt="").json()["tokens"] == []
    assert server.post("/tokenize", prompt="x" * (CONTEXT + 9)).json()["count"] == CONTEXT + 9, (
        "no limit but the body's"
    )


def test_a_chat_becomes_the_ids_that_its_completion_uses(server: Server) -> None:
    count = server.post("/tokenize", messages=USER).json()["count"]
    answer = server.post("/v1/chat/completions", messages=USER, max_tokens=1)
    assert answer.json()["usage"]["prompt_tokens"] == count == len("user: hi") + 1 + len("assistant: ")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(max_size=20))
def test_any_text_comes_back(server: Server, text: str) -> None:
    ids = server.post("/tokenize", prompt=text).json()["tokens"]
    assert server.post("/detokenize", tokens=ids).json() == {"prompt": text}


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/tokenize", {}, 400, "prompt"),
        ("/tokenize", {"prompt": "x", "messages": USER}, 400, "prompt"),
        ("/tokenize", {"prompt": ["x"]}, 400, "prompt"),
        ("/tokenize", {"messages": []}, 400, "messages"),
        ("/tokenize", {"messages": [{"role": "assistant", "content": "I"}]}, 400, None),
        ("/tokenize", {"prompt": "x", "model": "other"}, 404, "model"),
        ("/detokenize", {}, 400, "tokens"),
        ("/detokenize", {"tokens": [-1]}, 400, "tokens.0"),
        ("/detokenize", {"tokens": [258]}, 400, "tokens"),
        ("/detokenize", {"tokens": "x"}, 400, "tokens"),
    ],
    ids=str,
)
def test_what_cannot_be_turned_is_told(server: Server, path: str, body: Any, status: int, param: str | None) -> None:
    answer = server.post(path, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
