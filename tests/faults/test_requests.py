"""A4, A9, A10, A30: what one request, one client or one broken message does to a server of two real ranks: nothing.

All run on one server, which must stop cleanly at the end (`survivor`).
"""

import time
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
import zmq

from minisgl.messages import Abort, Finish, Step
from minisgl.sockets import address
from support.server import Server, Stream

pytestmark = pytest.mark.cpu

MANY = np.arange(1, 500, dtype="<i8")  # uids: the open request's is among them
LONG = [65] * 600  # tokens: 38 chunks of 16, each 0.01 s and more


@pytest.fixture(autouse=True)
def server(survivor: Server) -> Iterator[Server]:
    """The server before each test; after it, everything is given back and the same question has the same answer."""
    before = answer(survivor)
    yield survivor
    assert answer(survivor) == before
    assert survivor.metric("minisgl_requests_running") == 0
    assert survivor.process.poll() is None


def answer(server: Server) -> str:
    server.wait_for(lambda: server.metric("minisgl_kv_cache_used_tokens") == 0, 20)
    response = server.complete("the same question", max_tokens=8, temperature=0, ignore_eos=True)
    assert response.status_code == 200, response.text
    server.wait_for(lambda: server.metric("minisgl_kv_cache_used_tokens") == 0, 20)
    return str(response.json()["choices"][0]["text"])


def ended(server: Server, reason: str) -> float:
    return server.metric(f'minisgl_requests_total{{finish_reason="{reason}"}}')


# ---- A4: a stage fails for one request


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([{"role": "assistant", "content": "first"}], "the user must speak first"),
        ([{"role": "user", "content": "loop"}], "ran longer"),
    ],
)
def test_a_template_that_fails_is_that_requests_400(server: Server, messages: object, sentence: str) -> None:
    response = server.post("/v1/chat/completions", messages=messages, max_tokens=2)
    assert response.status_code == 400
    assert sentence in response.json()["error"]["message"]


def test_a_row_that_cannot_be_decoded_ends_its_request_only(server: Server) -> None:
    stream = Stream(server, "abc", max_tokens=100)
    tokens, finish = np.full(len(MANY), -7, "<i4"), np.zeros(len(MANY), "u1")
    inject(server, "detokenizer", Step(MANY.tobytes(), tokens.tobytes(), finish.tobytes()))
    assert '"internal_error"' in stream.last()
    assert server.complete("abc", max_tokens=2).status_code == 200


# ---- A30: messages that make no sense


@pytest.mark.parametrize("inbox", ["scheduler", "detokenizer", "tokenizer-0", "frontend"])
def test_garbage_is_dropped_and_counted(server: Server, inbox: str) -> None:
    process = {"scheduler": "scheduler-0"}.get(inbox, inbox)
    series = f'minisgl_dropped_messages_total{{process="{process}"}}'
    before = server.metric(series)
    old_version = msgspec.msgpack.encode(["Generate", 1, b"\1\0\0\0"])
    inject(server, inbox, b"", b"\xc1", b"\xff" * 5000, msgspec.msgpack.encode(["Nobody", 1]), old_version)
    server.wait_for(lambda: server.metric(series) >= before + 5, 10)
    assert server.complete("abc", max_tokens=2).status_code == 200


def test_garbage_does_not_reach_another_rank(server: Server) -> None:
    inject(server, "rank-1", b"", b"\xc1", msgspec.msgpack.encode(["Nobody", 1]))
    assert server.complete("abc", max_tokens=2).status_code == 200


def test_a_step_whose_arrays_do_not_fit_ends_the_requests_in_it(server: Server) -> None:
    stream = Stream(server, "abc", max_tokens=100)
    inject(server, "detokenizer", Step(MANY.tobytes(), bytes(4), bytes(1)))
    assert '"internal_error"' in stream.last()
    assert "dropped step" in server.log


def test_rows_of_nobody_are_dropped(server: Server) -> None:
    strange = np.array([10**15, -1], "<i8").tobytes()
    inject(server, "detokenizer", Step(strange, bytes(8), bytes([Finish.RUNNING, Finish.LENGTH])))
    assert server.complete("abc", max_tokens=2).status_code == 200


# ---- A9: a client that leaves


def test_a_client_that_leaves_while_decoding_is_an_abort(server: Server) -> None:
    before = ended(server, "abort")
    Stream(server, "abc").leave()
    server.wait_for(lambda: ended(server, "abort") == before + 1, 10)


def test_a_client_that_leaves_the_queue_is_an_abort(server: Server) -> None:
    before = ended(server, "abort")
    running = [Stream(server, "abc"), Stream(server, "abd")]
    with pytest.raises(Exception, match="timed out"):
        server.client.post("/v1/completions", json={"prompt": "abe", "max_tokens": 9}, timeout=1)
    server.wait_for(lambda: ended(server, "abort") == before + 1, 10)
    for stream in running:
        stream.leave()
    server.wait_for(lambda: ended(server, "abort") == before + 3, 10)


def test_a_client_that_leaves_in_mid_prefill_is_an_abort(server: Server) -> None:
    before = ended(server, "abort")
    with pytest.raises(Exception, match="timed out"):
        server.client.post("/v1/completions", json={"prompt": LONG, "max_tokens": 3000}, timeout=0.3)
    server.wait_for(lambda: ended(server, "abort") == before + 1, 10)


@pytest.mark.parametrize("seconds", [0.005, 0.01, 0.015, 0.02, 0.03, 0.04])
def test_a_client_that_leaves_as_its_answer_ends_is_counted_once(server: Server, seconds: float) -> None:
    reasons = ("abort", "length", "stop")
    before = sum(ended(server, reason) for reason in reasons)
    try:
        server.client.post("/v1/completions", json={"prompt": "abc", "max_tokens": 1}, timeout=seconds)
    except Exception as error:
        assert "timed out" in str(error)  # noqa: PT017  either end of the race is right
    time.sleep(0.7)  # the scheduler's figures are that old at most
    assert sum(ended(server, reason) for reason in reasons) <= before + 1


# ---- A10: aborts of what is not there


def test_aborts_of_unknown_and_finished_requests_do_nothing(server: Server) -> None:
    assert server.complete("abc", max_tokens=2).status_code == 200
    stream = Stream(server, "abc", max_tokens=60)
    inject(server, "scheduler", Abort(10**12), Abort(-1), Abort(1), Abort(1), Abort(2))
    assert stream.last(20) == "data: [DONE]"


def test_an_abort_that_comes_twice_ends_the_request_once(server: Server) -> None:
    before = ended(server, "abort")
    stream = Stream(server, "abc")
    inject(server, "scheduler", *[Abort(int(uid)) for uid in MANY] * 2)
    assert "abort" in "".join(stream.lines) or stream.last(20)
    server.wait_for(lambda: ended(server, "abort") == before + 1, 10)


def inject(server: Server, inbox: str, *messages: msgspec.Struct | bytes) -> None:
    """Put messages into a pipe of the server, beside its own."""
    context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    socket.connect(address(server.ipc(), inbox))
    for message in messages:
        socket.send(message if isinstance(message, bytes) else msgspec.msgpack.encode(message))
    socket.close(linger=5000)
    context.term()
