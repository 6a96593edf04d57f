"""Server-sent events over plain ASGI: bytes are put together from prepared pieces, slow readers are bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from starlette.types import Message, Receive, Scope, Send

from minisgl.errors import MiniSGLError
from minisgl.server import faults

SEND_SECONDS = 60.0  # a client that reads nothing for so long is gone
DONE = b"data: [DONE]\n\n"
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would collect the events
]
# ASGI extensions of `connection` and, the last, of `door`:
CUT = "minisgl.cut"  # drop the connection with what it has not read
FULL = "minisgl.full"  # does its client read too slowly, so that sending waits?
STRAIGHT = "minisgl.straight"  # the server's own `send`: the layers between look at a response's start only


class SlowReaderError(Exception):
    """The client does not read."""


class EventStream:
    """One response of events. `close` ends it well; leaving it early cuts the connection."""

    def __init__(self, scope: Scope, send: Send) -> None:
        extensions = scope.get("extensions", {})
        self._scope, self._start = scope, send
        self._send: Send = extensions.get(STRAIGHT, send)
        self._is_full: Callable[[], bool] = extensions.get(FULL, lambda: True)

    async def open(self) -> None:
        await self._start({"type": "http.response.start", "status": 200, "headers": HEADERS})

    async def put(self, event: bytes) -> None:
        """Send whole events; no byte, no event. Raises SlowReaderError when the client's buffers stay full."""
        if not event:
            return
        await self._put({"type": "http.response.body", "body": event, "more_body": True})

    async def put_error(self, error: MiniSGLError) -> None:
        """The last event of a stream that failed; no [DONE] follows."""
        await self.put(event_of(faults.body(error)))

    async def close(self) -> None:
        with contextlib.suppress(SlowReaderError):
            await self._put({"type": "http.response.body", "body": b"", "more_body": False})

    async def _put(self, message: Message) -> None:
        if not self._is_full():  # the hot path: what cannot wait needs no timer
            await self._send(message)
            return
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._send(message)
        except TimeoutError:
            self._scope["extensions"][CUT]()
            raise SlowReaderError from None


def event_of(content: Any) -> bytes:
    return b"data: " + msgspec.json.encode(content) + b"\n\n"


async def until_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> bool:
    """Run `work` while the client is there; True when it left and `work` was cancelled."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            return False
        return True
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait({working})


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
