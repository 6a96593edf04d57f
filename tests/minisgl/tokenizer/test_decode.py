"""Streams of text against the plain decode of the tokenizers library, for both families of decoders."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from minisgl.tokenizer.decode import ByteStream, Decoder, WindowStream
from support.words import EOS, byte_tokenizer, llama_tokenizer

BYTES = byte_tokenizer()
LLAMA = llama_tokenizer()


def streamed(tokenizer: Tokenizer, ids: list[int], skip_special_tokens: bool = True) -> list[str]:
    stream = Decoder(tokenizer).open(skip_special_tokens)
    return [*(stream.feed(token) for token in ids), stream.flush()]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.integers(0, 259)), st.booleans())
def test_any_bytes_stream_as_they_decode_whole(ids: list[int], skip_special_tokens: bool) -> None:
    pieces = streamed(BYTES, ids, skip_special_tokens)
    assert "".join(pieces) == BYTES.decode(ids, skip_special_tokens=skip_special_tokens)


@settings(max_examples=400, deadline=None)
@given(st.text())
def test_any_text_streams_unharmed(text: str) -> None:
    for tokenizer in (BYTES, LLAMA):
        ids = tokenizer.encode(text).ids
        assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)


@pytest.mark.parametrize("tokenizer", [BYTES, LLAMA])
def test_half_a_character_is_held_back(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a🎉b").ids
    pieces = streamed(tokenizer, ids)
    assert "".join(pieces) == "a🎉b"
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("tokenizer", [BYTES, LLAMA])
def test_bytes_that_never_become_a_character_come_at_the_end(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a🎉").ids[:-1]
    *pieces, rest = streamed(tokenizer, ids)
    assert "".join(pieces) == "a"
    assert set(rest) == {"\ufffd"}


def test_a_hidden_special_token_leaves_the_spaces_around_it() -> None:
    ids = [*LLAMA.encode("hello").ids, LLAMA.token_to_id("<s>"), *LLAMA.encode("hello").ids]
    assert "".join(streamed(LLAMA, ids)) == LLAMA.decode(ids) == "hello hello"


def test_replacement_characters_that_the_model_means_do_not_pile_up() -> None:
    ids = LLAMA.encode("\ufffd" * 40).ids
    pieces = streamed(LLAMA, ids)
    assert "".join(pieces) == "\ufffd" * 40
    assert max(map(len, pieces)) <= 4


def test_each_family_gets_its_stream() -> None:
    assert isinstance(Decoder(BYTES).open(True), ByteStream)
    assert isinstance(Decoder(LLAMA).open(True), WindowStream)


def test_special_tokens_are_shown_when_asked_for() -> None:
    assert "".join(streamed(BYTES, [104, EOS, 257], skip_special_tokens=False)) == "h<|end|><think it over>"
    assert "".join(streamed(BYTES, [104, EOS, 257])) == "h<think it over>"


def test_a_row_of_a_padded_vocabulary_has_no_text() -> None:
    assert "".join(streamed(BYTES, [104, 999, 105])) == "hi"
