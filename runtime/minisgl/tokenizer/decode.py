"""Token ids to text, one token at a time: the concatenated pieces equal the plain decode of all ids.

Holds bytes of an unfinished character back and gives them out at the end; `spell` says what a token alone stands for.
Knows nothing of stop strings.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from typing import Protocol

from tokenizers import Tokenizer

REPLACEMENT = "\ufffd"
BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")  # byte fallback: a byte that no other token holds

MARKS = frozenset({"<think>", "</think>", "<tool_call>", "</tool_call>"})  # special in some tokenizers


class TextStream(Protocol):
    """One answer's text, growing."""

    def feed(self, token: int) -> str:
        """The text that is certain now that `token` is known; often one word, sometimes nothing."""

    def flush(self) -> str:
        """The rest, at the end."""


class Decoder:
    """Makes text streams of one tokenizer, the exact and fast way where its decoder is byte-level BPE's."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        description = json.loads(tokenizer.to_str())
        self._is_byte_level = (description["decoder"] or {}).get("type") == "ByteLevel"
        special = {token["id"]: token["content"] for token in description["added_tokens"] if token["special"]}
        self._special = set(special)
        self._special_but_marks = {token for token, name in special.items() if name not in MARKS}
        self._bytes: dict[int, bytes] = {}  # token id -> its bytes, filled as tokens appear

    def open(self, skip_special_tokens: bool, shows_marks: bool = False) -> TextStream:
        hidden = self.hidden(skip_special_tokens, shows_marks)
        if self._is_byte_level:
            return ByteStream(self.spell, self._bytes, hidden)
        return WindowStream(self._tokenizer, hidden)

    def hidden(self, skip_special_tokens: bool, shows_marks: bool = False) -> set[int]:
        """The tokens that are no text."""
        if not skip_special_tokens:
            return set()
        return self._special_but_marks if shows_marks else self._special

    def spell(self, token: int) -> bytes:
        """What the token stands for in the middle of a text; a special token's name."""
        data = self._bytes.get(token)
        if data is None:
            data = self._bytes[token] = self._spell(token)
        return data

    def _spell(self, token: int) -> bytes:
        text = self._tokenizer.id_to_token(token)
        if text is None:  # a row of a padded vocabulary: no text
            return b""
        if not self._is_byte_level:
            byte = BYTE_PIECE.fullmatch(text)
            return bytes.fromhex(byte[1]) if byte else text.replace("\u2581", " ").encode()
        try:
            return bytes(BYTE_OF[char] for char in text)
        except KeyError:  # an added token stands for itself
            return text.encode()


# Byte-level BPE writes each byte as one printable character: itself, or 256 + its rank among the others (GPT-2).
_PLAIN = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_REST = [byte for byte in range(256) if byte not in set(_PLAIN)]
BYTE_OF = {chr(byte): byte for byte in _PLAIN} | {chr(256 + rank): byte for rank, byte in enumerate(_REST)}


class ByteStream:
    """Concatenates the tokens' bytes through an incremental UTF-8 decoder: constant work per token, exact."""

    def __init__(self, spell: Callable[[int], bytes], known: dict[int, bytes], hidden: set[int]) -> None:
        self._spell, self._known, self._hidden = spell, known, hidden
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        if token in self._hidden:
            return ""
        data = self._known.get(token)
        if data is None:
            data = self._spell(token)
        return self._utf8.decode(data)

    def flush(self) -> str:
        return self._utf8.decode(b"", final=True)


class WindowStream:
    """Any other decoder (Metaspace, byte fallback): decodes a short window again and emits what it adds.

    ids:   … emitted … | context | held |
                       ^ start   ^ read  ^ end
    The context makes leading-space rules see what they saw before; text that ends in U+FFFD may be half a character.
    """

    LONGEST_HOLD = 12  # tokens; more U+FFFD is what the model means, and 12 bytes hold whole ones of its 3 bytes

    def __init__(self, tokenizer: Tokenizer, hidden: set[int]) -> None:
        self._tokenizer, self._hidden = tokenizer, hidden
        self._window: list[int] = []
        self._read = 0
        self._context_text = ""

    def feed(self, token: int) -> str:
        if token in self._hidden:  # kept out of the window: a decoder would take its neighbour for the text's start
            return ""
        self._window.append(token)
        text = self._decode(self._window)
        is_open = text.endswith(REPLACEMENT) and len(self._window) - self._read < self.LONGEST_HOLD
        if is_open or (text and len(text) <= len(self._context_text)):
            return ""
        return self._emit(text)

    def flush(self) -> str:
        return self._emit(self._decode(self._window))

    def _emit(self, text: str) -> str:
        piece = text[len(self._context_text) :]
        self._window = self._window[self._read :]
        self._read = len(self._window)
        self._context_text = self._decode(self._window)
        return piece

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))
