"""From rows to texts: what opens an answer, what ends it, and that nothing stays behind."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models

from minisgl.messages import DecodeParams, Finish, Opened, Stats, Step, Text, Texts, Thinking
from minisgl.tokenizer.decode import Decoder
from minisgl.tokenizer.detokenizer import NO_TOKEN, UNREADABLE, Detokenizer
from support.words import EOS, byte_tokenizer

Row = tuple[int, int, Finish]


def step(*rows: Row, opened: tuple[Opened, ...] = (), errors: dict[int, str] | None = None) -> Step:
    uids, tokens, finish = zip(*rows, strict=True)
    arrays = np.array(uids, "<i8"), np.array(tokens, "<i4"), np.array(finish, "u1")
    return Step(*(array.tobytes() for array in arrays), opened, errors or {})


class Reader:
    """Feeds steps of one answer and keeps its texts."""

    def __init__(self, **params: object) -> None:
        self.detokenizer = Detokenizer(Decoder(byte_tokenizer()))
        self.opened = (Opened(1, 5, DecodeParams(**params)),)  # type: ignore[arg-type]
        self.texts: list[Text] = []

    def feed(self, token: int, finish: Finish = Finish.RUNNING) -> None:
        texts = self.detokenizer.read(step((1, token, finish), opened=self.opened))
        self.opened = ()
        if texts:
            self.texts += texts.items

    def write(self, text: str, finish: Finish) -> str:
        *first, last = text.encode()
        for token in first:
            self.feed(token)
        self.feed(last, finish)
        return self.text

    @property
    def text(self) -> str:
        return "".join(text.text for text in self.texts)


def test_an_answer_is_told_token_by_token() -> None:
    reader = Reader()
    assert reader.write("hi", Finish.LENGTH) == "hi"
    assert reader.texts == [Text(1, "h", 1, 5), Text(1, "i", 2, 5, Finish.LENGTH)]
    assert len(reader.detokenizer) == 0


def test_stop_strings_are_looked_for_after_min_tokens() -> None:
    reader = Reader(stop=("ab",), min_tokens=3)
    assert reader.write("ababab", Finish.LENGTH) == "abab"
    assert reader.texts[-1].stopped_by == "ab"


def test_the_first_token_is_told_even_without_text() -> None:
    reader = Reader()
    reader.feed("é".encode()[0])
    assert reader.texts == [Text(1, "", 1, 5)]


def test_an_end_token_counts_but_is_no_text() -> None:
    for end in (EOS, ord("!")):  # special, and one of the request's stop_token_ids
        reader = Reader(skip_special_tokens=False)
        reader.feed(ord("a"))
        reader.feed(end, Finish.STOP)
        assert (reader.text, reader.texts[-1].num_tokens, reader.texts[-1].finish) == ("a", 2, Finish.STOP)


def test_a_stop_string_ends_the_answer_once_and_later_rows_are_ignored() -> None:
    reader = Reader(stop=("cd",))
    reader.write("abcdefg", Finish.RUNNING)
    assert reader.text == "ab"
    assert [(text.finish, text.stopped_by) for text in reader.texts if text.finish] == [(Finish.STOP, "cd")]
    assert len(reader.detokenizer) == 1  # until the scheduler's own end
    reader.feed(NO_TOKEN, Finish.ABORT)
    assert len(reader.detokenizer) == 0
    assert sum(bool(text.finish) for text in reader.texts) == 1


def test_a_stop_string_with_the_last_token_is_a_stop() -> None:
    reader = Reader(stop=("cd",))
    assert reader.write("abcd", Finish.LENGTH) == "ab"
    assert reader.texts[-1].finish is Finish.STOP
    assert len(reader.detokenizer) == 0


def test_what_is_held_back_comes_at_the_end() -> None:
    reader = Reader(stop=("cdef",))
    assert reader.write("abcde", Finish.LENGTH) == "abcde"
    reader = Reader()
    reader.feed("é".encode()[0], Finish.LENGTH)
    assert reader.text == "\ufffd"


def test_a_stop_string_may_end_in_a_held_character() -> None:
    reader = Reader(stop=("é",))
    assert reader.write("aéb", Finish.LENGTH) == "a"
    assert reader.texts[-1].stopped_by == "é"


def test_a_request_that_ends_before_its_first_token_still_ends() -> None:
    detokenizer = Detokenizer(Decoder(byte_tokenizer()))
    texts = detokenizer.read(step((7, NO_TOKEN, Finish.ERROR), errors={7: "no room"}))
    assert texts
    assert texts.items == (Text(7, "", 0, 0, Finish.ERROR, error="no room"),)


def test_only_figures_pass_through() -> None:
    detokenizer = Detokenizer(Decoder(byte_tokenizer()))
    assert detokenizer.read(Step()) is None
    texts = detokenizer.read(Step(stats=Stats(running=2)))
    assert texts
    assert texts.stats == Stats(running=2)


def metaspace_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE({"a": 0, "▁": 1}, []))
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


class BrokenStream:
    """A decoder that fails in an unforeseen way."""

    def feed(self, token: int) -> str:
        raise RuntimeError("no such state")

    def flush(self) -> str:
        return ""


def opened(*uids: int) -> tuple[Opened, ...]:
    return tuple(Opened(uid, 0, DecodeParams()) for uid in uids)


def ends(texts: Texts | None) -> dict[int, Finish]:
    return {text.uid: text.finish for text in texts.items} if texts else {}


def test_an_answer_that_cannot_be_decoded_ends_alone() -> None:
    detokenizer = Detokenizer(Decoder(byte_tokenizer()))
    detokenizer.read(step((1, 65, Finish.RUNNING), (2, 65, Finish.RUNNING), opened=opened(1, 2)))
    detokenizer._answers[1].stream = BrokenStream()
    texts = detokenizer.read(step((1, 66, Finish.RUNNING), (2, 66, Finish.RUNNING)))
    assert texts
    assert texts.items == (Text(1, "", 2, 0, Finish.ERROR, error=UNREADABLE), Text(2, "B", 2, 0))
    assert detokenizer.read(step((1, 67, Finish.RUNNING))) is None  # the scheduler goes on until it is told
    assert detokenizer.read(step((1, NO_TOKEN, Finish.ABORT))) is None
    assert len(detokenizer) == 1
    assert detokenizer.dropped == 1


def test_a_row_of_nobody_is_dropped_and_counted() -> None:
    detokenizer = Detokenizer(Decoder(byte_tokenizer()))
    assert detokenizer.read(step((9, 65, Finish.RUNNING))) is None
    assert detokenizer.dropped == 1


def test_a_token_outside_the_vocabulary_ends_nobody_else() -> None:
    for decoder in (byte_tokenizer(), metaspace_tokenizer()):
        detokenizer = Detokenizer(Decoder(decoder))
        texts = detokenizer.read(step((1, -7, Finish.RUNNING), (2, 2**31 - 1, Finish.RUNNING), opened=opened(1, 2)))
        assert ends(texts) == {1: Finish.ERROR, 2: Finish.RUNNING}


def test_a_finish_that_nobody_knows_is_an_error() -> None:
    detokenizer = Detokenizer(Decoder(byte_tokenizer()))
    texts = detokenizer.read(Step(b"\1" + bytes(7), bytes(4), b"\x63", opened(1)))
    assert ends(texts) == {1: Finish.ERROR}


@pytest.mark.parametrize(
    "arrays",
    [(16, 4, 2), (16, 8, 1), (16, 7, 2), (8, 8, 2)],
    ids=["tokens short", "finish short", "half a token", "uids short"],
)
def test_a_step_whose_arrays_do_not_fit_ends_the_requests_that_it_names(arrays: tuple[int, int, int]) -> None:
    drops = []
    detokenizer = Detokenizer(Decoder(byte_tokenizer()), lambda: drops.append(1))
    detokenizer.read(
        step((1, 65, Finish.RUNNING), (2, 65, Finish.RUNNING), (3, 65, Finish.RUNNING), opened=opened(1, 2, 3))
    )
    uids, tokens, finish = arrays
    texts = detokenizer.read(Step(np.array([1, 2], "<i8").tobytes()[:uids], bytes(tokens), bytes(finish)))
    named = {1: Finish.ERROR, 2: Finish.ERROR} if uids == 16 else {1: Finish.ERROR}
    assert ends(texts) == named
    assert len(detokenizer) == 3 - len(named)
    assert len(drops) == detokenizer.dropped == 1


def test_a_step_whose_uids_cannot_be_read_ends_all() -> None:
    detokenizer = Detokenizer(Decoder(byte_tokenizer()))
    texts = detokenizer.read(Step(b"123", bytes(4), b"\0", opened(1, 2)))
    assert ends(texts) == {1: Finish.ERROR, 2: Finish.ERROR}


def test_an_answer_whose_stop_was_told_is_not_told_again() -> None:
    reader = Reader(stop=("cd",))
    reader.write("abcd", Finish.RUNNING)
    assert reader.detokenizer.read(Step(np.array([1], "<i8").tobytes())) is None
    assert len(reader.detokenizer) == 0


@given(st.binary(max_size=40), st.binary(max_size=20), st.binary(max_size=5))
def test_no_arrays_break_it(uids: bytes, tokens: bytes, finish: bytes) -> None:
    detokenizer = Detokenizer(Decoder(byte_tokenizer()))
    detokenizer.read(Step(uids, tokens, finish, opened(0, 1)))


def test_reasoning_tokens_are_counted_one_by_one_whatever_is_shown() -> None:
    for params, count in [
        ({"thinking": Thinking.OPEN}, 11),
        ({"thinking": Thinking.NONE}, 0),
        ({"thinking": Thinking.OPEN, "stop": ("y",)}, 3),
    ]:
        reader = Reader(**params)
        reader.write("why</think>so", Finish.LENGTH)
        assert reader.texts[-1].reasoning_tokens == count


def test_marks_that_are_special_tokens_are_text_for_whom_reads_them() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens([AddedToken("<think>", special=True)])
    mark = tokenizer.token_to_id("<think>")
    for shows_marks, text in [(True, "a<think>"), (False, "a")]:
        detokenizer = Detokenizer(Decoder(tokenizer))
        opened = (Opened(1, 0, DecodeParams(shows_marks=shows_marks)),)
        rows = (1, ord("a"), Finish.RUNNING), (1, EOS, Finish.RUNNING), (1, mark, Finish.LENGTH)
        texts = detokenizer.read(step(*rows, opened=opened))
        assert texts is not None
        assert "".join(item.text for item in texts.items) == text
