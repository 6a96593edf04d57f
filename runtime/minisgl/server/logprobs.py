"""Logprobs as OpenAI's two endpoints write them. Bytes in, JSON out.

A token's text is its bytes where they are UTF-8. One that is half a character is written `bytes:\\xe2\\x80`, as OpenAI
does: it stays one of its kind, where U+FFFD would make many tokens look the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minisgl.messages import PromptToken, Scored

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


def completion_logprobs(tokens: Sequence[Scored], offset: int = 0) -> dict[str, Any]:
    """`choices[].logprobs` of a completion whose text begins after `offset` characters of an echo."""
    return {
        "tokens": [text_of(token.spelling) for token in tokens],
        "token_logprobs": [_finite(token.logprob) for token in tokens],
        "top_logprobs": [_by_text((*token.top, (token.spelling, token.logprob))) for token in tokens],
        "text_offset": [offset + token.start for token in tokens],
    }


def echoed_logprobs(prompt: Sequence[PromptToken], num_top: int) -> dict[str, Any]:
    """The same columns for a prompt; of its first token nothing is known."""

    def likeliest(token: PromptToken) -> dict[str, float] | None:
        if token.logprob is None:
            return None
        top = [(spelling, logprob) for _, spelling, logprob in token.top[:num_top]]
        return _by_text([*top, (token.spelling, token.logprob)])

    return {
        "tokens": [text_of(token.spelling) for token in prompt],
        "token_logprobs": [None if token.logprob is None else _finite(token.logprob) for token in prompt],
        "top_logprobs": [likeliest(token) for token in prompt],
        "text_offset": [token.start for token in prompt],
    }


def prompt_logprobs(prompt: Sequence[PromptToken], num_top: int) -> list[dict[str, Any] | None]:
    """vLLM's `prompt_logprobs`: for each token of the prompt the likeliest ones and itself, by id."""
    told: list[dict[str, Any] | None] = []
    for token in prompt:
        if token.logprob is None:
            told.append(None)
            continue
        ranked = [(*top, rank) for rank, top in enumerate(token.top[:num_top], 1)]
        own = (token.token, token.spelling, token.logprob, token.rank)
        told.append(
            {
                str(number): {"logprob": _finite(logprob), "rank": rank, "decoded_token": text_of(spelling)}
                for number, spelling, logprob, rank in [*ranked, own]
            }
        )
    return told


def text_of(spelling: bytes) -> str:
    try:
        return spelling.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelling)


def _by_text(tokens: Sequence[tuple[bytes, float]]) -> dict[str, float]:
    """The likeliest tokens, then the chosen one wherever it stands; of two with one text the likelier."""
    found: dict[str, float] = {}
    for spelling, logprob in tokens:
        found.setdefault(text_of(spelling), _finite(logprob))
    return found


def _candidate(spelling: bytes, logprob: float) -> dict[str, Any]:
    return {"token": text_of(spelling), "logprob": _finite(logprob), "bytes": list(spelling)}


def _finite(logprob: float) -> float:
    return max(logprob, LOWEST)
