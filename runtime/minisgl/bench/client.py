"""One HTTP request over a connection of its own, its answer handed on piece by piece. Knows HTTP, not OpenAI.

Protocol and parser (httptools, in C) in place of a client library: those cost several times more for each streamed
event, and a client that is busy measures itself.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

import httptools

CONNECT_SECONDS = 10.0
JOIN = "Content-Type: application/json\r\nConnection: close\r\n"


class Failed(Exception):
    """The request got no whole answer. The text is the kind under which it is counted."""


class Endpoint:
    """Where requests go, and what each of them carries. Raises ValueError if `url` is none."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no http:// or https:// address")
        self.host, self.port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        self._base = parts.path.rstrip("/").removesuffix("/v1")  # OpenAI's clients write it, probes do not
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        key = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
        self._head = f"Host: {parts.netloc.rpartition('@')[2]}\r\nAccept: */*\r\n{JOIN}{key}"

    async def ask(
        self, method: str, path: str, body: bytes = b"", on_piece: Callable[[bytes], None] | None = None
    ) -> tuple[int, bytes]:
        """Status, and the body: what of a 200 goes to `on_piece` is not kept. Raises Failed."""
        loop = asyncio.get_running_loop()
        head = f"{method} {self._base}{path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
        answer = _Answer(head.encode() + body, on_piece, loop.create_future())
        try:
            transport = await self._connect(answer)
            try:
                await answer.ended
            finally:
                transport.abort()  # a client that stops listening leaves at once
        finally:
            answer.ended.cancel()  # what the connection still says, nobody waits for
        return answer.status, bytes(answer.body)

    async def _connect(self, answer: _Answer) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                transport, _ = await loop.create_connection(lambda: answer, self.host, self.port, ssl=self._tls)
        except TimeoutError:
            raise Failed("no connection within 10 s") from None
        except OSError as error:
            raise Failed(f"no connection: {_why(error)}") from error
        return transport


class _Answer(asyncio.Protocol):
    """One connection: writes the request, feeds the parser (which calls the `on_…` methods), ends exactly once."""

    def __init__(self, request: bytes, on_piece: Callable[[bytes], None] | None, ended: asyncio.Future[None]) -> None:
        self.status, self.body, self.ended = 0, bytearray(), ended
        self._request, self._on_piece = request, on_piece
        self._parser = httptools.HttpResponseParser(self)
        self._ends_with_connection = True

    def connection_made(self, transport: asyncio.WriteTransport) -> None:  # type: ignore[override]
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.ended.done():
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            # What `on_body` raises arrives wrapped: it is the listener's word about the stream.
            cause = error.__context__
            self._end(cause if isinstance(cause, Failed) else Failed("not HTTP"))

    def connection_lost(self, error: Exception | None) -> None:
        if error is None and self.status and self._ends_with_connection:
            return self._end(None)
        return self._end(Failed("connection lost" if self.status else "connection closed without an answer"))

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._ends_with_connection = False

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        if self._on_piece is not None and self.status == 200:
            self._on_piece(data)
        else:
            self.body += data

    def on_message_complete(self) -> None:
        self._end(None)

    def _end(self, error: Failed | None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)


def _why(error: OSError) -> str:
    """Without addresses and numbers, so that equal failures are counted together."""
    names = {ConnectionRefusedError: "refused", ConnectionResetError: "reset", ssl.SSLError: "TLS failed"}
    for kind, name in names.items():
        if isinstance(error, kind):
            return name
    return error.strerror or type(error).__name__
