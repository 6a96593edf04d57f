"""What clients cannot do to a server: fill it, hold it, or leave something behind. Around the fake scheduler."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from support.server import SLACK, Server, listeners, running
from support.words import CONTEXT, save_words

pytestmark = pytest.mark.cpu


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ("--tp=2", "--max-running-requests=4", "--max-queued-requests=4", "--max-body-bytes=65536")
    with running(save_words(tmp_path_factory.mktemp("model")), *flags, fake="step=0.01") as server:
        yield server


@pytest.fixture(autouse=True)
def _nothing_stays(server: Server) -> Iterator[None]:
    """Whatever a test does, the scheduler is empty soon after it and the server goes on."""
    yield
    server.wait_for(lambda: server.metric("minisgl_requests_running") == 0, 5)
    assert server.complete("abc", max_tokens=2).status_code == 200


def raw(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10)


def request_bytes(**fields: Any) -> bytes:
    body = json.dumps(fields).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def test_one_more_than_the_limit_is_refused_at_once(server: Server) -> None:
    with ExitStack() as clients:
        for _ in range(8):
            client = clients.enter_context(raw(server))
            client.sendall(request_bytes(prompt="abc", max_tokens=3000, stream=True))
            assert client.recv(1)  # admitted
        started = time.monotonic()
        refused = server.complete("abc", max_tokens=1)
        assert time.monotonic() - started < SLACK  # the eight take much longer
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "overloaded"
        server.wait_for(lambda: server.metric("minisgl_requests_waiting") == 4, 5)
        assert server.metric("minisgl_requests_running") == 4
        assert server.client.get("/readyz").status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_place(server: Server, stream: bool) -> None:
    before = server.metric('minisgl_requests_total{finish_reason="abort"}')
    with raw(server) as connection:
        connection.sendall(request_bytes(prompt="abc", max_tokens=3000, stream=stream))
        server.wait_for(lambda: server.metric("minisgl_requests_running") == 1, 5)
    server.wait_for(lambda: server.metric("minisgl_requests_running") == 0, SLACK)  # 3000 tokens take much longer
    assert server.metric('minisgl_requests_total{finish_reason="abort"}') == before + 1


def test_a_hundred_hasty_clients_leave_nothing(server: Server) -> None:
    def come_and_go(number: int) -> None:
        with raw(server) as connection:
            data = request_bytes(prompt="abc" * 10, max_tokens=500, stream=number % 2 == 0)
            connection.sendall(data[: len(data) - number % 3])  # some leave in the middle of their body

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(come_and_go, range(100)))


def test_a_client_that_does_not_read_disturbs_nobody(server: Server) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        connection.sendall(request_bytes(prompt="abc", max_tokens=3000, stream=True))
        started = time.monotonic()
        assert server.complete("abc", max_tokens=20).json()["choices"][0]["text"] == ("abc" * 7)[:20]
        assert time.monotonic() - started < 3


def test_endless_headers_are_cut_off(server: Server) -> None:
    with raw(server) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n")
        answer = b""
        try:
            for number in range(2000):
                connection.sendall(b"X-%d: " % number + b"y" * 100 + b"\r\n")
            while data := connection.recv(4096):
                answer += data
        except (BrokenPipeError, ConnectionResetError):
            return
    assert answer.startswith(b"HTTP/1.1 400")


def test_what_is_no_http_gets_an_openai_error(server: Server) -> None:
    with raw(server) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        head, _, body = connection.recv(4096).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert json.loads(body)["error"]["code"] == "invalid_http"


def test_an_endless_body_is_cut_off(server: Server) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b" " * 1000

    try:
        answer = server.client.post("/v1/completions", content=endless())
    except httpx.WriteError:  # the server closed while we were still writing
        return
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


@pytest.mark.parametrize(
    ("prompt_len", "max_tokens", "status"),
    [
        (CONTEXT - 1, 1, 200),
        (CONTEXT - 1, 2, 400),
        (CONTEXT, 1, 400),
        (CONTEXT - 10, 10, 200),
        (1, 2**31 - 1, 400),
    ],
)
def test_the_context_ends_exactly(server: Server, prompt_len: int, max_tokens: int, status: int) -> None:
    for prompt in ("x" * prompt_len, [120] * prompt_len):
        answer = server.complete(prompt, max_tokens=max_tokens)
        assert answer.status_code == status, answer.text
        if status == 400:
            assert answer.json()["error"]["code"] == "context_length_exceeded"
            assert f"{prompt_len} in the prompt" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("prompt", "code"),
    [
        ("", "invalid_prompt"),
        ([], "invalid_value"),
        ([[]], "invalid_prompt"),
        ([300], "invalid_value"),
        (["a", ""], "invalid_prompt"),
        ([[65], [300]], "invalid_value"),
        (["a"] * 9, "invalid_value"),
    ],
)
def test_a_prompt_that_cannot_be_computed_is_refused(server: Server, prompt: Any, code: str) -> None:
    answer = server.complete(prompt)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert answer.json()["error"]["param"] == "prompt"


@pytest.mark.parametrize("number", [2**70, -(2**63) - 1])
def test_a_number_that_no_message_holds_is_refused_and_takes_no_place(server: Server, number: int) -> None:
    for _ in range(10):  # more than may be open
        said = {"role": "user", "content": "abc", "a key for the template": [number]}
        answer = server.post("/v1/chat/completions", max_tokens=2, messages=[said])
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["code"] == "invalid_prompt"
        assert "64 bits" in answer.json()["error"]["message"]


def test_a_failed_request_fails_alone(server: Server) -> None:
    failed = server.complete("abc", seed=666)
    assert (failed.status_code, failed.json()["error"]["type"]) == (500, "server_error")
    with server.client.stream(
        "POST", "/v1/completions", json={"prompt": "abc", "seed": 666, "stream": True}
    ) as response:
        events = [line for line in response.iter_lines() if line]
    assert len(events) == 1
    assert "error" in json.loads(events[0].removeprefix("data: "))


@pytest.mark.parametrize(
    ("given", "kept"), [("job-1:a.b_c", True), ("x" * 129, False), ("a b", False), ("<script>", False), ("", False)]
)
def test_a_request_id_is_returned_if_it_is_plain(server: Server, given: str, kept: bool) -> None:
    answer = server.client.get("/version", headers={"X-Request-Id": given})
    returned = answer.headers["x-request-id"]
    assert (returned == given) is kept
    assert returned


def test_a_wrong_content_type_is_told(server: Server) -> None:
    answer = server.client.post("/v1/completions", content=b"{}", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


def test_an_endless_template_holds_up_only_its_own_chat(server: Server) -> None:
    slow: list[httpx.Response] = []
    body = {"messages": [{"role": "user", "content": "loop"}]}
    asking = threading.Thread(target=lambda: slow.append(server.post("/v1/chat/completions", **body)))
    asking.start()
    assert server.client.get("/readyz").status_code == 200
    assert slow == [], "the chat is still being rendered"
    asking.join(5)
    assert slow[0].status_code == 400
    assert "ran longer" in slow[0].json()["error"]["message"]


def test_the_tree_has_one_listener(server: Server) -> None:
    port = int(server.url.rpartition(":")[2])
    assert listeners(list(server.pids().values())) == {f"0100007F:{port:04X}"}


def test_all_label_sets_are_there_and_none_is_a_users(server: Server) -> None:
    server.client.get("/very/secret/path")
    server.complete("abc", model="somebody-elses")
    text = server.client.get("/metrics").text
    assert "secret" not in text
    assert "somebody" not in text
    for series in (
        'minisgl_requests_total{finish_reason="error",model_name="tiny"}',
        'minisgl_process_up{model_name="tiny",process="scheduler-1"} 1.0',
        'minisgl_startup_seconds{model_name="tiny",phase="weights"}',
        'minisgl_build_info{model_name="tiny",version=',
        'minisgl_http_responses_total{endpoint="other",model_name="tiny",status="404"}',
        'minisgl_time_to_first_token_seconds_bucket{le="0.005",model_name="tiny"}',
    ):
        assert series in text
