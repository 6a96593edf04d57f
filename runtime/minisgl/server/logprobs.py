"""Logprobs as OpenAI's two endpoints write them. Bytes in, JSON out.

A token's text is its bytes where they are UTF-8. One that is half a character is written `bytes:\\xe2\\x80`, as OpenAI
does: it stays one of its kind, where U+FFFD would make many tokens look the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minisgl.messages import Scored

LOWEST = -9999.0  # JSON has no infinity


def chat_logprobs(tokens: Sequence[Scored]) -> dict[str, Any]:
    """`choices[].logprobs` of a chat."""
    content = [
        {
            **_candidate(token.spelling, token.logprob),
            "top_logprobs": [_candidate(spelling, logprob) for spelling, logprob in token.top],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(tokens: Sequence[Scored]) -> dict[str, Any]:
    """`choices[].logprobs` of a completion."""
    return {
        "tokens": [text_of(token.spelling) for token in tokens],
        "token_logprobs": [_finite(token.logprob) for token in tokens],
        "top_logprobs": [_by_text(token) for token in tokens],
        "text_offset": [token.start for token in tokens],
    }


def text_of(spelling: bytes) -> str:
    try:
        return spelling.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelling)


def _by_text(token: Scored) -> dict[str, float]:
    """The likeliest tokens, and the chosen one wherever it stands; of two with one text the likelier."""
    found: dict[str, float] = {}
    for spelling, logprob in (*token.top, (token.spelling, token.logprob)):
        found.setdefault(text_of(spelling), _finite(logprob))
    return found


def _candidate(spelling: bytes, logprob: float) -> dict[str, Any]:
    return {"token": text_of(spelling), "logprob": _finite(logprob), "bytes": list(spelling)}


def _finite(logprob: float) -> float:
    return max(logprob, LOWEST)
