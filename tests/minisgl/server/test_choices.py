"""Several choices, several prompts, echo and min_tokens, as the official client sees them around the fake scheduler."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from minisgl.errors import RequestError
from minisgl.server.openai import CompletionRequest, read
from support.front import FrontEnd
from support.server import Server, Stream, running
from support.words import save_words

cpu = pytest.mark.cpu
FAILS = 666  # the fake scheduler's seed for it
USER: Any = [{"role": "user", "content": "hi"}]
LONG = "A prompt that is longer than one page of the cache. "


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ("--max-running-requests=8", "--max-queued-requests=8")
    with running(save_words(tmp_path_factory.mktemp("model")), *flags) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as ready:
        yield ready


@pytest.fixture(autouse=True)
def _nothing_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "server" in request.fixturenames:
        server: Server = request.getfixturevalue("server")
        server.wait_for(lambda: server.metric("minisgl_requests_running") == 0, 5)


@cpu
def test_n_choices_are_numbered_and_a_prompt_counts_once(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", messages=USER, n=3, max_tokens=4)
    assert [(choice.index, choice.message.content, choice.finish_reason) for choice in answer.choices] == [
        (0, "user", "length"),
        (1, "user", "length"),
        (2, "user", "length"),
    ]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    assert answer.usage.prompt_tokens == len("user: hi") + 1 + len("assistant: ")
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 3


@cpu
def test_streamed_choices_say_the_same(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="tiny", messages=USER, n=3, max_tokens=9, stop="r: h", stream=True, stream_options={"include_usage": True}
    )
    texts, roles, ends = {0: "", 1: "", 2: ""}, [], {}
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            roles += [choice.index] if choice.delta.role else []
            assert choice.index not in ends, "nothing comes after a choice's end"
            ends |= {choice.index: choice.finish_reason} if choice.finish_reason else {}
    assert texts == {0: "use", 1: "use", 2: "use"}
    assert (roles, ends) == ([0, 1, 2], {0: "stop", 1: "stop", 2: "stop"})
    assert chunk.usage is not None
    assert chunk.usage.completion_tokens >= 3 * len("user: h")


@cpu
@pytest.mark.parametrize("prompts", [["ab", "cde"], [[97, 98], [99, 100, 101]]], ids=["texts", "ids"])
def test_prompts_of_a_list_come_back_in_their_order(client: openai.OpenAI, prompts: Any) -> None:
    body: Any = {"model": "tiny", "prompt": prompts, "max_tokens": 3, "n": 2}
    answer = client.completions.create(**body)
    assert [(choice.index, choice.text) for choice in answer.choices] == [
        (0, "aba"),
        (1, "aba"),
        (2, "cde"),
        (3, "cde"),
    ]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 12)
    texts = dict.fromkeys(range(4), "")
    for chunk in client.completions.create(**body, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == {choice.index: choice.text for choice in answer.choices}


@cpu
@pytest.mark.parametrize("stream", [False, True])
def test_an_echo_stands_before_each_answer(client: openai.OpenAI, stream: bool) -> None:
    for prompt in ("héy<|end|>", [*"héy".encode(), 256]):
        body: Any = {"model": "tiny", "prompt": prompt, "max_tokens": 2, "n": 2, "echo": True, "stream": stream}
        answer = client.completions.create(**body)
        texts = {0: "", 1: ""}
        for part in answer if stream else [answer]:
            for choice in part.choices:
                texts[choice.index] += choice.text
        # What the client wrote is said back as it was; of its ids, what is text.
        echo = prompt if isinstance(prompt, str) else "héy"
        assert texts == {0: echo + "h\ufffd", 1: echo + "h\ufffd"}


@cpu
def test_a_choice_that_fails_fails_the_answer_and_ends_the_others(server: Server) -> None:
    answer = server.complete("abc", n=3, seed=FAILS - 1, max_tokens=3000)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")


@cpu
def test_a_client_that_leaves_takes_all_its_choices_along(server: Server) -> None:
    for prompt in ("abc", LONG):
        Stream(server, prompt, n=4).leave()
        server.wait_for(lambda: server.metric("minisgl_requests_running") == 0, 5)
    assert server.complete("abc", n=16).status_code == 200, "all places are free"


@cpu
def test_a_request_counts_once_and_each_choice_once(server: Server) -> None:
    def counts() -> list[float]:
        names = (
            'minisgl_http_responses_total{endpoint="/v1/completions",status="200"}',
            'minisgl_requests_total{finish_reason="length"}',
            "minisgl_generation_tokens_total",
            "minisgl_request_duration_seconds_count",
            "minisgl_prompt_tokens_total",
        )
        return [server.metric(name) for name in names]

    before = counts()
    assert server.complete(["abc", "defg"], n=3, max_tokens=5).status_code == 200
    server.wait_for(lambda: counts()[0] > before[0], 5)  # it is counted after its last byte
    assert [after - was for was, after in zip(before, counts(), strict=True)] == [1, 6, 30, 6, 21]


@cpu
def test_stop_ids_wait_for_min_tokens(client: openai.OpenAI) -> None:
    body: Any = {"model": "tiny", "prompt": "abc", "max_tokens": 8}
    asked = {"min_tokens": 4, "stop_token_ids": [97]}
    assert client.completions.create(**body, extra_body=asked).choices[0].text == "abcabc"
    assert client.completions.create(**body, stop="b", extra_body={"min_tokens": 4}).choices[0].text == "abca"


def test_choices_are_requests_of_one_prompt_with_seeds_in_a_row(tmp_path: Path) -> None:
    front_end = FrontEnd(tmp_path)
    asked = {"prompt": [65] * 100, "n": 3, "seed": 2**63 - 2, "min_tokens": 2, "best_of": 3}
    assert front_end.ask("POST", "/v1/completions", asked).status_code == 200
    first, *others = front_end.generated
    assert [request.sampling.seed for request in front_end.generated] == [2**63 - 2, 2**63 - 1, -(2**63)]
    assert {request.ids for request in others} == {first.ids}
    assert {request.sampling.min_tokens for request in front_end.generated} == {2}
    assert {request.decode.min_tokens for request in front_end.generated} == {2}
    front_end.ask("POST", "/v1/completions", {"prompt": "x", "n": 2})
    assert [request.sampling.seed for request in front_end.generated[3:]] == [None, None], "the scheduler draws them"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"n": 0}, "invalid_value", "n"),
        ({"n": 129}, "invalid_value", "n"),
        ({"n": True}, "invalid_value", "n"),
        ({"n": 2, "best_of": 3}, "unsupported_parameter", "best_of"),
        ({"best_of": 2}, "unsupported_parameter", "best_of"),
        ({"echo": 1}, "invalid_value", "echo"),
        ({"min_tokens": -1}, "invalid_value", "min_tokens"),
        ({"min_tokens": 9, "max_tokens": 8}, "invalid_value", "min_tokens"),
    ],
    ids=str,
)
def test_what_cannot_be_chosen_is_told(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(CompletionRequest, {"prompt": "x", **fields}).sampling(8)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)


@pytest.mark.parametrize(("prompt", "n", "param"), [("x", 5, "n"), (["x"] * 5, 1, "prompt"), (["x"] * 3, 2, "n")])
def test_more_choices_than_the_server_has_places_is_no_matter_of_patience(
    tmp_path: Path, prompt: Any, n: int, param: str
) -> None:
    answer = FrontEnd(tmp_path).ask("POST", "/v1/completions", {"prompt": prompt, "n": n})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_value", param)
    assert "4 is the limit" in error["message"]
