"""The outermost ASGI layer: request ids, response counts, closing connections while draining. Knows no route's work."""

from __future__ import annotations

import re
import uuid

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minisgl.server.front import Front
from minisgl.server.sse import STRAIGHT

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
SCOPE_KEY = "minisgl.request_id"
CLIENT_GONE = 499  # nginx's number for a client that left before its answer


class Door:
    """Wraps the application. `endpoints` are the paths that get a label of their own."""

    def __init__(self, app: ASGIApp, front: Front, endpoints: frozenset[str]) -> None:
        self._app, self._front, self._endpoints = app, front, endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        status = CLIENT_GONE
        scope[SCOPE_KEY] = _request_id(scope)

        async def pass_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id(scope)
                if self._front.health.state in ("draining", "failed"):
                    headers["Connection"] = "close"
            await send(message)

        scope.setdefault("extensions", {})[STRAIGHT] = send
        try:
            await self._app(scope, receive, pass_on)
        finally:
            self._front.metrics.counter("minisgl_http_responses_total", self._label(scope["path"]), str(status)).inc()

    def _label(self, path: str) -> str:
        if path in self._endpoints:
            return path
        return "/v1/models/{id}" if path.startswith("/v1/models/") else "other"


def request_id(scope: Scope) -> str:
    """The id of the request that came through the door: in its response's headers, its answer's id, and the log."""
    name: str = scope[SCOPE_KEY]
    return name


def rename(scope: Scope, name: str | None) -> None:
    """The body names the request: this counts more than its header."""
    if name is not None:
        scope[SCOPE_KEY] = name


def _request_id(scope: Scope) -> str:
    """The client's own if it is short and plain, else a new one."""
    for name, value in scope["headers"]:
        given: str = value.decode("latin-1")
        if name == b"x-request-id" and REQUEST_ID.fullmatch(given):
            return given
    return uuid.uuid4().hex
