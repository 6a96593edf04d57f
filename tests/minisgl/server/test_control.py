"""What operators ask of a running server, around the fake scheduler: aborts by name, a flushed cache, one token."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from minisgl.server import control
from support.front import FrontEnd
from support.server import Server, running
from support.words import save_words

pytestmark = pytest.mark.cpu
LONG: Any = {"prompt": "abc", "max_tokens": 3000, "ignore_eos": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(save_words(tmp_path_factory.mktemp("model")), fake="step=0.01") as server:
        yield server


class Asking:
    """One completion, asked for in a thread under a name of its own."""

    def __init__(self, server: Server, name: str, **fields: Any) -> None:
        self.answers: list[httpx.Response] = []
        self._ask = lambda: self.answers.append(
            server.client.post("/v1/completions", json=LONG | fields, headers={"X-Request-Id": name})
        )
        before = server.metric("minisgl_requests_running")
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        server.wait_for(lambda: server.metric("minisgl_requests_running") > before, 10)

    def answer(self) -> httpx.Response:
        self._thread.join(10)
        assert not self._thread.is_alive(), "the request hangs"
        return self.answers[0]


@pytest.mark.parametrize(("field", "prefix"), [("request_id", ""), ("rid", ""), ("request_id", "cmpl-")])
def test_a_request_is_aborted_by_its_id_or_its_answers(server: Server, field: str, prefix: str) -> None:
    mine, other = Asking(server, "mine"), Asking(server, "other")
    assert server.post("/abort_request", **{field: f"{prefix}mine"}).json() == {"aborted": 1}
    answer = mine.answer()
    assert answer.status_code == 200
    assert answer.json()["id"] == "cmpl-mine"
    choice = answer.json()["choices"][0]
    assert choice["finish_reason"] == "abort"
    assert ("abc" * 1000).startswith(choice["text"])
    assert choice["text"], "what it had said is not lost"
    assert server.post("/abort_request", abort_all=True).json() == {"aborted": 1}
    assert other.answer().json()["choices"][0]["finish_reason"] == "abort"
    assert server.post("/abort_request", rid="mine").json() == {"aborted": 0}, "it has ended"


def test_all_choices_of_a_request_are_aborted_also_those_that_wait_for_the_first(server: Server) -> None:
    streaming = Asking(server, "many", n=3, stream=True)
    assert server.post("/abort_request", rid="many").json() == {"aborted": 3}
    assert streaming.answer().text.count('"finish_reason":"abort"') == 3
    stuck = Asking(server, "stuck", prompt="x" * 100, n=3, seed=670)  # never gets its first token
    assert server.post("/abort_request", rid="stuck").json() == {"aborted": 3}
    answer = stuck.answer()
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "aborted")
    server.wait_for(lambda: server.metric("minisgl_requests_running") == 0, 10)


@pytest.mark.parametrize("field", ["rid", "request_id"])
def test_a_name_in_the_body_is_the_requests_while_it_is_open(server: Server, field: str) -> None:
    mine = Asking(server, "header", **{field: "body-1"})
    again = server.complete("abc", rid="body-1")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "request_id_in_use")
    assert server.post("/tokenize", prompt="a", rid="body-1").headers["x-request-id"] == "body-1"
    assert server.post("/abort_request", **{field: "body-1"}).json() == {"aborted": 1}
    answer = mine.answer()
    assert (answer.headers["x-request-id"], answer.json()["id"]) == ("body-1", "cmpl-body-1")
    assert server.complete("abc", rid="body-1", max_tokens=1).status_code == 200, "it has ended"


@pytest.mark.parametrize("name", ["", "a b", "é", "x" * 129, 7, "a\n"])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/generate", "/tokenize"])
def test_a_name_is_short_and_plain(server: Server, path: str, name: Any) -> None:
    messages = [{"role": "user", "content": "a"}]
    body = {"text": "a"} if path == "/generate" else {"messages": messages} if "chat" in path else {"prompt": "a"}
    answer = server.post(path, **body, rid=name)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "rid")


@pytest.mark.parametrize("body", [{}, {"abort_all": False}, {"rid": ""}, {"rid": 7}], ids=str)
def test_an_abort_of_nobody_is_told(server: Server, body: dict[str, Any]) -> None:
    answer = server.post("/abort_request", **body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")


@pytest.mark.parametrize("path", ["/flush_cache", "/reset_prefix_cache"])
def test_a_flush_disturbs_nobody(server: Server, path: str) -> None:
    asking = Asking(server, "running", max_tokens=50)
    assert server.client.post(path).status_code == 200
    assert asking.answer().json()["usage"]["completion_tokens"] == 50
    assert server.client.get("/livez").status_code == 200


def test_a_token_goes_through_the_whole_tree(server: Server) -> None:
    before = server.metric("minisgl_generation_tokens_total")
    answer = server.client.get("/health_generate")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert server.metric("minisgl_generation_tokens_total") == before + 1


def test_no_token_in_time_is_no_health(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ANSWER_SECONDS", 0.05)
    front_end = FrontEnd(tmp_path)
    front_end.is_silent = True
    answer = front_end.ask("GET", "/health_generate")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_answer")
    assert answer.headers["retry-after"]


def test_a_failure_in_the_log_names_the_clients_request(server: Server) -> None:
    answer = server.client.post("/v1/completions", json={"prompt": "a", "seed": 666}, headers={"X-Request-Id": "job-7"})
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "job-7"
    server.wait_for(lambda: "generation failed request=job-7 uid=" in server.log, 5)
