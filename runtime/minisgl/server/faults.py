"""Errors as clients read them: always the OpenAI object, never a stack, a path or HTML."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import ValidationError
from starlette.responses import Response

from minisgl.errors import BackendDied, MiniSGLError, Overloaded, RequestError

INTERNAL = "The server met an unexpected error; its log has the details."
TYPES = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}


def body(error: MiniSGLError) -> dict[str, Any]:
    """`{"error": {message, type, param, code}}`."""
    if isinstance(error, RequestError):
        kind = TYPES.get(error.status, "invalid_request_error")
        return _object(str(error), kind, error.param, error.code)
    return _object(str(error) if isinstance(error, BackendDied) else INTERNAL, "server_error", None, "server_failed")


def _object(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def answer(error: MiniSGLError) -> Response:
    """The whole HTTP response for an error before the first byte."""
    status = error.status if isinstance(error, RequestError) else 503 if isinstance(error, BackendDied) else 500
    headers = {}
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(error.retry_after)
    elif status == 503:
        headers["Retry-After"] = "5"
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (408, 413):  # the rest of the body stays unread
        headers["Connection"] = "close"
    return json_answer(body(error), status, headers)


def json_answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, "application/json")


def of_validation(error: ValidationError) -> RequestError:
    """The first thing that is wrong, named by its JSON path and value."""
    detail = error.errors(include_url=False)[0]
    path = ".".join(str(part)[:60] for part in detail["loc"] if not _is_branch(part))  # a key may be a client's text
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    value = detail["input"]
    shown = f" (got {_short(value)})" if detail["type"] != "missing" else ""
    return RequestError(f"{path or 'body'}: {message}{shown}", code="invalid_value", param=path or None)


def _is_branch(part: int | str) -> bool:
    """pydantic names the member of a union it tried; that is no JSON key."""
    return isinstance(part, str) and ("[" in part or part in ("str", "int", "TextPart"))


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, int | float | str | None) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:60]}…"
