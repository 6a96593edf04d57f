"""The sampling fields of a request: bounds are told to the client, values arrive at the scheduler as they were sent."""

from pathlib import Path
from typing import Any

import pytest

from minisgl.errors import RequestError
from minisgl.messages import SamplingParams
from minisgl.server.openai import CompletionRequest, read
from support.front import VOCABULARY, FrontEnd

ASKED: dict[str, Any] = {
    "presence_penalty": -2,
    "frequency_penalty": 1.5,
    "repetition_penalty": 1.1,
    "logit_bias": {"65": -100, "66": 2.5},
}


def body(**fields: Any) -> CompletionRequest:
    return read(CompletionRequest, {"prompt": "x", **fields})


def test_what_is_left_out_changes_nothing() -> None:
    assert body().sampling(8) == SamplingParams(8)
    nothing = dict.fromkeys([*ASKED, "priority"])
    assert body(**nothing).sampling(8) == SamplingParams(8)
    neutral = {"presence_penalty": 0, "frequency_penalty": 0.0, "repetition_penalty": 1, "logit_bias": {}}
    assert body(**neutral).sampling(8) == SamplingParams(8)


def test_penalties_and_biases_become_sampling_parameters() -> None:
    assert body(**ASKED).sampling(8) == SamplingParams(
        8,
        presence_penalty=-2.0,
        frequency_penalty=1.5,
        repetition_penalty=1.1,
        logit_bias={65: -100.0, 66: 2.5},
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"presence_penalty": 2},
        {"frequency_penalty": -2},
        {"repetition_penalty": 2},
        {"repetition_penalty": 0.01},
        {"logit_bias": {str(token): 100 for token in range(300)}},
        {"logit_bias": {7: -1}},
        {"priority": 1000},
        {"priority": -1000},
    ],
    ids=lambda fields: str(fields)[:40],
)
def test_the_bounds_themselves_are_allowed(fields: dict[str, Any]) -> None:
    assert body(**fields)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"presence_penalty": "1"}, "presence_penalty"),
        ({"presence_penalty": True}, "presence_penalty"),
        ({"frequency_penalty": -2.1}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_penalty": -1}, "repetition_penalty"),
        ({"repetition_penalty": 2.1}, "repetition_penalty"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"logit_bias": {"5": None}}, "logit_bias.5"),
        ({"logit_bias": {"-1": 1}}, "logit_bias.-1"),
        ({"logit_bias": {"word": 1}}, "logit_bias.word"),
        ({"logit_bias": {"99999999999": 1}}, "logit_bias.99999999999"),
        ({"logit_bias": {str(token): 1 for token in range(301)}}, "logit_bias"),
        ({"logit_bias": [5]}, "logit_bias"),
        ({"priority": 1001}, "priority"),
        ({"priority": 0.5}, "priority"),
        ({"priority": True}, "priority"),
        ({"cache_salt": ""}, "cache_salt"),
        ({"cache_salt": "x" * 257}, "cache_salt"),
        ({"cache_salt": 1}, "cache_salt"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_value_out_of_bounds_names_its_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        body(**fields)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_value", param)
    assert str(caught.value).startswith(f"{param}: ")


def test_an_error_does_not_repeat_a_long_key() -> None:
    with pytest.raises(RequestError) as caught:
        body(logit_bias={"x" * 100_000: 1})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "fields",
    [
        {"suffix": "x"},
        {"guided_json": {"type": "object"}},
    ],
    ids=str,
)
def test_what_is_not_served_yet_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        body(**fields)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", next(iter(fields)))


@pytest.mark.parametrize(
    ("path", "prompt"),
    [
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
    ],
)
def test_the_scheduler_gets_what_the_client_sent(tmp_path: Path, path: str, prompt: dict[str, Any]) -> None:
    front_end = FrontEnd(tmp_path)
    assert (
        front_end.ask("POST", path, {**prompt, "max_tokens": 3, "priority": -5, "cache_salt": "s", **ASKED}).status_code
        == 200
    )
    assert front_end.ask("POST", path, {**prompt, "max_tokens": 3}).status_code == 200
    asked, plain = front_end.generated
    assert (asked.sampling, asked.priority, asked.cache_salt) == (body(**ASKED).sampling(3), -5, "s")
    assert (plain.sampling, plain.priority, plain.cache_salt) == (SamplingParams(3), 0, "")


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_bias_for_a_token_that_the_model_does_not_have_is_refused(tmp_path: Path, path: str) -> None:
    front_end = FrontEnd(tmp_path)
    prompt = {"prompt": "x", "messages": [{"role": "user", "content": "x"}]}
    last = {str(VOCABULARY - 1): 1}
    assert front_end.ask("POST", path, {**prompt, "logit_bias": last}).status_code == 200
    answer = front_end.ask("POST", path, {**prompt, "logit_bias": {**last, str(VOCABULARY): 1}})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_value", "logit_bias")
    assert f"{VOCABULARY} is outside the vocabulary of {VOCABULARY}" in error["message"]
