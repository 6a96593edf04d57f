"""10,000 random texts, cut anywhere into tokens, under every stop rule: the stream's pieces are the plain answer, and
both are what an oracle says that sees the whole text. Through detokenizer, table, both styles and the events' bytes;
200 of them through a whole server.
"""

import codecs
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models

from minisgl.messages import DecodeParams, Finish, Opened, Step, Text
from minisgl.server.requests import Bell, Ticket
from minisgl.server.style import ChatStyle, CompletionStyle, Style
from minisgl.tokenizer.decode import BYTE_OF, Decoder
from minisgl.tokenizer.detokenizer import NO_TOKEN, Detokenizer
from support.server import Server, running
from support.words import llama_tokenizer, save_words, stopped

COUNT, COUNT_OVER_HTTP = 10_000, 200
CHAR_OF = {byte: char for char, byte in BYTE_OF.items()}
RANGES = [(32, 127), (4, 32), (0xA0, 0x250), (0x300, 0x370), (0x4E00, 0x9FFF), (0xE000, 0x10FFFF), (0x1F300, 0x1FAFF)]
FAVOURITES = ["👩‍👩‍👧‍👦", "e\u0301", "\ufffd", '"', "\\", "\u2028", "</s>", "\r\n", "🇩🇪", "ab", "aba", "\x7f"]


def random_text(rng: random.Random) -> str:
    kinds = rng.choices(RANGES, k=2)
    parts = [
        rng.choice(FAVOURITES) if rng.random() < 0.2 else chr(rng.randrange(*rng.choice(kinds))) for _ in range(12)
    ]
    return "".join(parts[: rng.randrange(1, 13)]) * rng.choice([1, 1, 1, 2, 3])


def random_stops(rng: random.Random, text: str) -> tuple[str, ...]:
    """Parts of the text that overlap each other, parts that almost occur, and others."""
    stops = []
    for _ in range(rng.randrange(5)):
        start = rng.randrange(len(text))
        part = text[start : start + rng.randrange(1, 6)]
        stops.append(part + rng.choice(["", "", "", "x", text[0]]))
    return tuple(stops)


def random_cut(rng: random.Random, data: bytes) -> list[bytes]:
    """Tokens of one to six bytes: inside characters, over stop strings."""
    pieces = []
    while data:
        size = rng.randrange(1, 7)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


@dataclass
class Case:
    """One answer and what must be seen of it."""

    text: str
    pieces: list[bytes]  # its tokens
    params: DecodeParams

    def expected(self) -> tuple[str, str | None]:
        """Before `min_tokens` nothing stops; a character belongs to the token that completes it."""
        head = b"".join(self.pieces[: self.params.min_tokens])
        known = len(_whole(head))
        rest, by = stopped(self.text[known:], self.params.stop, self.params.include_stop)
        return self.text[:known] + rest, by


def _whole(data: bytes) -> str:
    """The characters that are complete."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(data)


def random_case(rng: random.Random) -> Case:
    text = random_text(rng)
    data = text.encode()
    if rng.random() < 0.1:  # the limit of tokens fell into a character
        data = data[: rng.randrange(1, len(data) + 1)]
        text = data.decode(errors="replace")
    pieces = random_cut(rng, data)
    min_tokens = rng.choice([0, 0, 0, rng.randrange(len(pieces) + 1)])
    stops = random_stops(rng, text)
    return Case(text, pieces, DecodeParams(stops, include_stop=rng.random() < 0.3, min_tokens=min_tokens))


def vocabulary(cases: list[Case]) -> tuple[Decoder, dict[bytes, int]]:
    """A byte-level tokenizer that has all pieces as tokens."""
    pieces = {piece for case in cases for piece in case.pieces} | {bytes([byte]) for byte in range(256)}
    number_of = {piece: number for number, piece in enumerate(sorted(pieces))}
    names = {"".join(CHAR_OF[byte] for byte in piece): number for piece, number in number_of.items()}
    tokenizer = Tokenizer(models.BPE(names, []))
    tokenizer.decoder = decoders.ByteLevel()
    return Decoder(tokenizer), number_of


def answer(decoder: Decoder, tokens: list[int], params: DecodeParams, rng: random.Random) -> list[Text]:
    """The texts of one answer as its client gets them: several at once when it reads slowly."""
    detokenizer = Detokenizer(decoder)
    ticket = Ticket(1, "x", 0.0, Bell())
    texts = []
    opened: tuple[Opened, ...] = (Opened(1, 0, params),)
    for nth, token in enumerate(tokens):
        finish = Finish.LENGTH if nth == len(tokens) - 1 else Finish.RUNNING
        news = detokenizer.read(_step(token, finish, opened))
        opened = ()
        for text in news.items if news else ():
            ticket.take(text)
            if text.finish or rng.random() < 0.7:
                taken = ticket.poll()
                assert taken is not None
                texts.append(taken)
        if texts and texts[-1].finish:
            if not finish:  # a stop string ended it: the scheduler's end is still to come
                assert detokenizer.read(_step(NO_TOKEN, Finish.ABORT, ())) is None
            break
    assert len(detokenizer) == 0
    assert [bool(text.finish) for text in texts] == [False] * (len(texts) - 1) + [True]
    return texts


def _step(token: int, finish: Finish, opened: tuple[Opened, ...]) -> Step:
    arrays = np.array([1], "<i8"), np.array([token], "<i4"), np.array([finish], "u1")
    return Step(*(array.tobytes() for array in arrays), opened)


def over_the_wire(style: Style, texts: list[Text]) -> tuple[str, str]:
    """The text of the whole answer and of the stream, out of the bytes that are sent."""
    events = style.opening(0)
    for text in texts:
        events += style.piece(0, text.text)
    events += style.ending(0, texts[-1])
    whole = json.loads(json.dumps(style.choice(0, "".join(text.text for text in texts), (), texts[-1])))
    plain = whole["message"]["content"] if "message" in whole else whole["text"]
    return plain, "".join(pieces_of(events.decode()))


def pieces_of(stream: str) -> Iterator[str]:
    for event in stream.split("\n\n"):
        if event.startswith("data: {"):
            for choice in json.loads(event.removeprefix("data: "))["choices"]:
                yield choice["delta"].get("content", "") if "delta" in choice else choice["text"]


def test_10000_texts_cut_anywhere_under_every_stop_rule() -> None:
    rng = random.Random(5)
    cases = [random_case(rng) for _ in range(COUNT)]
    decoder, number_of = vocabulary(cases)
    num_stopped = 0
    for case in cases:
        texts = answer(decoder, [number_of[piece] for piece in case.pieces], case.params, rng)
        expected, by = case.expected()
        make = rng.choice([ChatStyle, CompletionStyle])
        plain, streamed = over_the_wire(make("m", "id", include_usage=False, has_logprobs=False), texts)
        assert (plain, streamed, texts[-1].stopped_by) == (expected, expected, by), case
        num_stopped += by is not None
    assert num_stopped > COUNT / 5


def test_so_do_words_with_spaces_and_byte_fallback() -> None:
    rng, tokenizer = random.Random(6), llama_tokenizer()
    decoder = Decoder(tokenizer)
    for _ in range(COUNT // 5):
        ids = tokenizer.encode(random_text(rng)).ids
        text = tokenizer.decode(ids)
        stops = random_stops(rng, text) if text else ()
        expected, by = stopped(text, stops, False)
        texts = answer(decoder, ids, DecodeParams(stops), rng)
        plain, streamed = over_the_wire(CompletionStyle("m", "id", include_usage=False, has_logprobs=False), texts)
        assert (plain, streamed, texts[-1].stopped_by) == (expected, expected, by), (text, stops)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(save_words(tmp_path_factory.mktemp("model"))) as server:
        yield server


@pytest.mark.cpu
def test_200_texts_through_a_whole_server(server: Server) -> None:
    rng = random.Random(7)

    def ask(body: dict[str, Any]) -> httpx.Response:
        response = server.client.post("/v1/completions", json=body)
        assert response.status_code == 200, response.text
        return response

    for _ in range(COUNT_OVER_HTTP):
        text = random_text(rng)
        stops, ids = random_stops(rng, text)[:4], list(text.encode())
        body = {"prompt": ids, "max_tokens": len(ids), "stop": list(stops)}  # the fake scheduler says the prompt
        plain = ask(body).json()["choices"][0]
        expected, by = stopped(text, stops, False)
        assert (plain["text"], plain["stop_reason"]) == (expected, by), body
        assert "".join(pieces_of(ask(body | {"stream": True}).text)) == expected
