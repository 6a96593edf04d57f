"""A request's body from the wire to plain JSON: bounded in bytes, time and depth."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request

from minisgl.errors import RequestError

PATIENCE_SECONDS = 60.0  # for the whole body


async def read_json(request: Request, max_bytes: int) -> Any:
    """Decode the body. Raises RequestError: 400, 408, 413 or 415."""
    kind = request.headers.get("content-type", "application/json")
    if "json" not in kind.lower():
        raise RequestError(
            f"Content-Type is {kind[:60]!r}; send application/json.", status=415, code="unsupported_media_type"
        )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            data = await _read(request, max_bytes)
    except TimeoutError:
        message = f"The body did not arrive within {PATIENCE_SECONDS:g} s."
        raise RequestError(message, status=408, code="request_timeout") from None
    try:
        return msgspec.json.decode(data)
    except RecursionError:
        raise RequestError("The body is nested too deeply.", code="invalid_json") from None
    except UnicodeDecodeError:
        raise RequestError("The body is not UTF-8.", code="invalid_json") from None
    except msgspec.DecodeError as error:
        raise RequestError(f"The body is not valid JSON: {error}", code="invalid_json") from None


async def _read(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > max_bytes:
                raise _too_large(max_bytes)
    except ClientDisconnect:
        raise RequestError("The client left before its body was complete.", code="client_gone") from None
    return bytes(data)


def _too_large(max_bytes: int) -> RequestError:
    message = f"The body is larger than {max_bytes} bytes; send a shorter prompt or raise --max-body-bytes."
    return RequestError(message, status=413, code="request_too_large")
