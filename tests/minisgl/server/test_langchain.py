"""LangChain's OpenAI class, unmodified, against a real server: what it asks, streams, batches and counts."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from support.server import running
from support.serving import Serving
from support.words import save_words

pytestmark = pytest.mark.cpu

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatOpenAI]:
    with Serving("--max-seq-len-override=512", "--num-tokens=4096", "--silent-output") as server:
        yield ChatOpenAI(
            model="m",
            base_url=f"{server.url}/v1",
            api_key=SecretStr("-"),
            temperature=0,
            max_completion_tokens=24,
            stream_usage=True,
            max_retries=0,
        )
        assert server.end() == 0, server.log


def test_it_is_answered_and_told_the_usage(chat: ChatOpenAI) -> None:
    answer = chat.invoke(QUESTION)
    assert isinstance(answer, AIMessage)
    assert answer.content == ANSWER
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata is not None
    assert (answer.usage_metadata["input_tokens"], answer.usage_metadata["output_tokens"]) == (37, 8)


def test_its_stream_adds_up_to_the_answer(chat: ChatOpenAI) -> None:
    pieces = list(chat.stream(QUESTION))
    assert len(pieces) > 5
    assert "".join(str(piece.content) for piece in pieces) == ANSWER
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] == 8


def test_its_batch_is_answered_in_order(chat: ChatOpenAI) -> None:
    questions = [f"What is the capital of {country}?" for country in ("France", "Italy", "Spain", "Germany")]
    together = [str(answer.content) for answer in chat.batch(list(questions))]
    assert together == [str(chat.invoke(question).content) for question in questions]
    assert together[0] == ANSWER
    assert len(set(together)) == 4
    messages = [SystemMessage("You are a helpful assistant."), HumanMessage(QUESTION)]
    assert "Paris" in str(asyncio.run(chat.ainvoke(messages)).content)


def test_its_stop_and_its_logprobs_are_served(chat: ChatOpenAI) -> None:
    assert chat.invoke(QUESTION, stop=[" is Par"]).content == "The capital of France"
    told = chat.bind(logprobs=True, top_logprobs=2).invoke(QUESTION).response_metadata["logprobs"]["content"]
    assert "".join(token["token"] for token in told) == ANSWER


def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"rain in {city}"


def test_its_tools_are_called_also_in_a_stream(tmp_path: Path) -> None:
    said = '\x02<tool_call>\n{"name": "get_weather", "arguments": {"city": "Zürich"}}\n</tool_call>\x03'
    with running(save_words(tmp_path), "--tool-call-parser=hermes") as server:
        chat = ChatOpenAI(model="tiny", base_url=f"{server.url}/v1", api_key=SecretStr("-"), max_retries=0)
        armed = chat.bind_tools([get_weather])
        answer = armed.invoke(said)
        assert isinstance(answer, AIMessage)
        assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("get_weather", {"city": "Zürich"})]
        pieces = list(armed.stream(said))
        whole = pieces[0]
        for piece in pieces[1:]:
            whole += piece
        assert [(call["name"], call["args"]) for call in whole.tool_calls] == [("get_weather", {"city": "Zürich"})]
