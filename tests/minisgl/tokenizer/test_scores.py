"""Logprobs beside the text: told with it, cut with it, spelled in bytes."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from minisgl.messages import DecodeParams, Finish, Logprobs, Opened, Step, Text, Texts
from minisgl.tokenizer.decode import Decoder
from minisgl.tokenizer.detokenizer import UNREADABLE, Detokenizer
from support.words import EOS, byte_tokenizer


def read(ids: list[int], finish: Finish = Finish.LENGTH, **params: object) -> list[Text]:
    """One answer, token by token; token t has logprob -t, and its neighbour the other."""
    detokenizer, texts = Detokenizer(Decoder(byte_tokenizer())), []
    for i, token in enumerate(ids):
        step = Step(
            np.array([7], "<i8").tobytes(),
            np.array([token], "<i4").tobytes(),
            bytes([finish if i == len(ids) - 1 else Finish.RUNNING]),
            (Opened(7, 0, DecodeParams(**params)),) if i == 0 else (),  # type: ignore[arg-type]
            logprobs={7: (Logprobs(token, -float(token), ((token ^ 1, -0.5),)),)},
        )
        told = detokenizer.read(msgspec.msgpack.decode(msgspec.msgpack.encode(step), type=Step))
        wire = msgspec.msgpack.decode(msgspec.msgpack.encode(told or Texts()), type=Texts)
        texts += wire.items
    return texts


def test_each_token_comes_with_its_text_and_where_it_begins() -> None:
    texts = read(list(b"hi"))
    assert [[(t.spelling, t.logprob, t.top, t.start) for t in text.tokens] for text in texts] == [
        [(b"h", -104.0, ((b"i", -0.5),), 0)],
        [(b"i", -105.0, ((b"h", -0.5),), 1)],
    ]


def test_halves_of_a_character_come_together_with_it() -> None:
    texts = read(list("aé!".encode()))
    assert [(text.text, [token.start for token in text.tokens]) for text in texts] == [
        ("a", [0]),
        ("é", [1, 1]),
        ("!", [2]),
    ]


def test_what_a_stop_string_may_still_cut_is_not_told_before() -> None:
    texts = read(list(b"ab, abc!"), stop=("abc",))
    assert [(text.text, b"".join(token.spelling for token in text.tokens)) for text in texts if text.text] == [
        ("ab,", b"ab,"),
        (" ", b" "),
    ]
    assert texts[-1].stopped_by == "abc"
    kept = read(list(b"ab, abc!"), stop=("abc",), include_stop=True)
    assert b"".join(token.spelling for text in kept for token in text.tokens) == b"ab, abc"


def test_an_end_token_and_hidden_special_tokens_are_not_told() -> None:
    texts = read([*b"a", EOS, *b"b", EOS], Finish.STOP)
    assert [token.spelling for text in texts for token in text.tokens] == [b"a", b"b"]
    shown = read([*b"a", EOS, *b"b", EOS], Finish.STOP, skip_special_tokens=False, include_stop=True)
    assert [token.spelling for text in shown for token in text.tokens] == [b"a", b"<|end|>", b"b", b"<|end|>"]


def test_logprobs_of_another_token_are_no_answer() -> None:
    detokenizer = Detokenizer(Decoder(byte_tokenizer()))
    row = np.array([7], "<i8").tobytes(), np.array([65], "<i4").tobytes(), b"\0"
    texts = detokenizer.read(Step(*row, (Opened(7, 0, DecodeParams()),), logprobs={7: (Logprobs(66, -1.0),)}))
    assert texts is not None
    assert (texts.items[0].finish, texts.items[0].error) == (Finish.ERROR, UNREADABLE)


@pytest.mark.parametrize(
    ("piece", "spelling"), [("▁the", b" the"), ("<0xE2>", b"\xe2"), ("<0xE>", b"<0xE>"), ("é", "é".encode())]
)
def test_pieces_of_other_tokenizers_are_spelled_as_they_stand_in_a_text(piece: str, spelling: bytes) -> None:
    tokenizer = Tokenizer(models.BPE({piece: 0}, []))
    tokenizer.decoder = decoders.Metaspace()
    assert Decoder(tokenizer).spell(0) == spelling
    assert Decoder(tokenizer).spell(1) == b""


@given(
    text=st.text(max_size=12),
    stop=st.lists(st.text(alphabet="ab é😀", min_size=1, max_size=3), max_size=2),
    cut=st.integers(0, 3),
    include_stop=st.booleans(),
)
def test_the_spellings_are_the_text_and_never_run_ahead_of_it(
    text: str, stop: list[str], cut: int, include_stop: bool
) -> None:
    ids = list(f"é{text}".encode())
    ids = ids[: max(1, len(ids) - cut)]
    texts = read(ids, stop=tuple(stop), include_stop=include_stop)
    told, shown = b"", ""
    for part in texts:
        told, shown = told + b"".join(token.spelling for token in part.tokens), shown + part.text
        assert shown.startswith(told.decode(errors="replace")[: len(shown)])
        assert all(token.start < len(shown) or part.finish for token in part.tokens)
    assert told.decode(errors="replace") == shown, "one byte is one token here, so nothing is cut in two"
