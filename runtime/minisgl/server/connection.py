"""uvicorn's connection with the limits it lacks: header size and time, an OpenAI error for bad HTTP, a hard cut."""

from __future__ import annotations

import asyncio
import fcntl
import termios

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from minisgl.errors import RequestError
from minisgl.server import faults
from minisgl.server.sse import CUT, FULL

HEADER_SECONDS = 30.0  # from the connection, or a request's first byte, to the end of its headers
HEADER_BYTES = 64 * 1024


class Connection(HttpToolsProtocol):
    """One client's connection."""

    _slow: asyncio.TimerHandle | None = None
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def retire(self) -> None:
        """Close where no request is, or after the answer that runs.

        A connection that is new, or whose request is on its way, stays: it gets its refusal (and `Connection: close`)
        in words. Closing it would be an answer lost, and of a POST no client knows whether to send it again.
        """
        if self.cycle is None or self._slow is not None:  # nothing has come yet, or half of the headers
            return
        if not self.cycle.response_complete or not self._has_unread():
            self.shutdown()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = 0
        self._expect_headers()
        self.scope["extensions"] = {CUT: self.transport.abort, FULL: self._is_full}  # type: ignore[dict-item]  # our own

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """The request was no HTTP that we can read."""
        content = msgspec.json.encode(faults.body(RequestError(msg, code="invalid_http")))
        head = (
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n" % len(content)
        )
        self.transport.write(head + content)
        self.transport.close()

    def _is_full(self) -> bool:
        return self.flow.write_paused

    def _has_unread(self) -> bool:
        """Whether the kernel holds bytes for us that the loop has not seen."""
        count = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.FIONREAD, bytes(4))
        return any(count)

    def _count(self, num_bytes: int) -> None:
        self._header_bytes += num_bytes
        if self._header_bytes > HEADER_BYTES:
            raise ValueError("headers are too large")  # httptools makes a 400 of it

    def _expect_headers(self) -> None:
        self._stop_waiting()
        self._slow = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
