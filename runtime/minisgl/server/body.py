"""A request's body from the wire to plain JSON: bounded in bytes, time and depth."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request

from minisgl.errors import RequestError

PATIENCE_SECONDS = 60.0  # for the whole body


def _number(text: str) -> int | float:
    """JSON has one kind of numbers: 1.0 is the integer 1, as JSON Schema has it. What no float holds is an error."""
    value = float(text)
    if not math.isfinite(value):
        raise msgspec.DecodeError(f"the number {text[:30]} is out of range")
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


DECODER = msgspec.json.Decoder(float_hook=_number)


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
        return DECODER.decode(data)
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
