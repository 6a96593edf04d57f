"""Which connections a drain may close: those on which no request is, read or unread."""

import asyncio
import socket
from types import SimpleNamespace

import pytest
import uvicorn
from uvicorn.server import ServerState

from minisgl.server.connection import Connection

GET = b"GET / HTTP/1.1\r\nHost: tiny\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "unread", "stays"),
    [
        ("", "", True),  # new: its request is on its way
        ("half", "", True),
        ("whole", "", False),
        ("whole", "half", True),
        ("whole", "whole", True),
        ("one and a half", "", True),
    ],
)
def test_a_drain_closes_a_connection_only_where_no_request_is(sent: str, unread: str, stays: bool) -> None:
    asyncio.run(_retire(sent, unread, stays))


async def _retire(sent: str, unread: str, stays: bool) -> None:
    bytes_of = {"": b"", "half": GET[:10], "whole": GET, "one and a half": GET + GET[:10]}
    config = uvicorn.Config(_answer, http=Connection, lifespan="off")
    config.load()
    connection = Connection(config, ServerState(), {})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport = _Transport(ours)
        connection.connection_made(transport)  # type: ignore[arg-type]  # what it uses of a transport
        if sent:
            connection.data_received(bytes_of[sent])
            await asyncio.sleep(0.01)  # its answer
        theirs.sendall(bytes_of[unread])
        connection.retire()
        assert transport.is_closed is not stays
        connection.connection_lost(None)


async def _answer(scope: object, receive: object, send) -> None:  # type: ignore[no-untyped-def]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


class _Transport(SimpleNamespace):
    def __init__(self, own: socket.socket) -> None:
        super().__init__(is_closed=False)
        self._own = own

    def get_extra_info(self, name: str) -> object:
        return self._own if name == "socket" else None

    def write(self, data: bytes) -> None: ...

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...
