"""A stream's events go out at once where the client reads, and a client that does not read is cut off."""

import asyncio
from typing import Any

import pytest
from starlette.types import Message

from minisgl.server import sse
from minisgl.server.sse import CUT, FULL, STRAIGHT, EventStream, SlowReaderError


class Client:
    """What stands behind a stream: it reads, or it does not."""

    def __init__(self, *, reads: bool = True) -> None:
        self.reads, self.is_cut = reads, False
        self.got: list[Message] = []

    def stream(self) -> EventStream:
        scope: dict[str, Any] = {"extensions": {CUT: self._cut, FULL: lambda: not self.reads}}
        return EventStream(scope, self._send)

    def _cut(self) -> None:
        self.is_cut = True

    async def _send(self, message: Message) -> None:
        if not self.reads:
            await asyncio.Event().wait()
        self.got.append(message)


def test_events_are_sent_as_they_are_and_the_end_closes() -> None:
    async def work(client: Client) -> None:
        stream = client.stream()
        await stream.open()
        await stream.put(b"data: 1\n\n")
        await stream.close()

    client = Client()
    asyncio.run(work(client))
    assert [message["type"].rpartition(".")[2] for message in client.got] == ["start", "body", "body"]
    assert client.got[1:] == [
        {"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True},
        {"type": "http.response.body", "body": b"", "more_body": False},
    ]
    assert not client.is_cut


def test_a_client_that_reads_costs_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_timer(_: float) -> None:
        raise AssertionError("a timer was set")

    monkeypatch.setattr(asyncio, "timeout", no_timer)
    asyncio.run(Client().stream().put(b"data: 1\n\n"))


def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "SEND_SECONDS", 0.02)
    client = Client(reads=False)
    with pytest.raises(SlowReaderError):
        asyncio.run(client.stream().put(b"data: 1\n\n"))
    assert client.is_cut


def test_nor_can_it_hold_an_answer_that_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "SEND_SECONDS", 0.02)
    client = Client(reads=False)
    asyncio.run(client.stream().close())
    assert client.is_cut


def test_where_the_server_does_not_say_if_it_is_full_there_is_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "SEND_SECONDS", 0.02)
    client = Client(reads=False)
    stream = EventStream({"extensions": {CUT: client._cut}}, client._send)
    with pytest.raises(SlowReaderError):
        asyncio.run(stream.put(b"data: 1\n\n"))


def test_only_the_start_passes_the_layers_between() -> None:
    server, layers = Client(), Client()

    async def work() -> None:
        stream = EventStream({"extensions": {STRAIGHT: server._send, FULL: lambda: False}}, layers._send)
        await stream.open()
        await stream.put(b"data: 1\n\n")
        await stream.close()

    asyncio.run(work())
    assert [message["type"] for message in layers.got] == ["http.response.start"]
    assert [message["more_body"] for message in server.got] == [True, False]
