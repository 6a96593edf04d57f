"""Asks a pod how far its start is, and what its engine became: GET /startupz, which needs no key.

Any image may answer here, so an answer is small, stays as it came over the wire, and has numbers that JSON can hold.
"""

from __future__ import annotations

import logging
import math
from typing import Any, Protocol

import aiohttp
from pydantic import ValidationError

from minisgl.info import StartInfo
from minisgl_operator.build.launch import PORT
from minisgl_operator.objects import Object

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 2.0  # it is answered from memory; longer means no way to the pod (a NetworkPolicy)
MAX_BYTES = 64 * 1024  # an answer has about 1 KB; unpacked, as many could be many megabytes
MOST = 2**63  # no count or duration reaches it, and Kubernetes stores no larger number


class Ask(Protocol):
    """How the reconciler asks; tests have their own."""

    async def __call__(self, pod: Object) -> StartInfo | None:
        """What the pod's server says, or None."""


async def ask_server(pod: Object) -> StartInfo | None:
    """GET /startupz of a pod; None if it does not answer, or not what we understand."""
    address = pod.get("status", {}).get("podIP", "")
    host = f"[{address}]" if ":" in address else address
    url = f"http://{host}:{PORT}/startupz"
    limit = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit, auto_decompress=False) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            if answer.status not in (200, 503):  # started, starting
                answer.raise_for_status()
            if answer.content_length is None or answer.content_length > MAX_BYTES:
                return None
            info = StartInfo.model_validate_json(await answer.read())
            return info if _is_plain(info.model_dump()) else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValidationError) as error:
        logger.info("no facts from pod=%s: %s", pod["metadata"]["name"], error or type(error).__name__)
        return None


def _is_plain(value: Any) -> bool:
    """Whether all numbers in it are finite, and none is larger than what can be stored."""
    if isinstance(value, dict | list | tuple):
        return all(_is_plain(each) for each in (value.values() if isinstance(value, dict) else value))
    return not isinstance(value, int | float) or (math.isfinite(value) and abs(value) < MOST)
