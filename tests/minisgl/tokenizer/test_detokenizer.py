"""From rows to texts: what opens an answer, what ends it, and that nothing stays behind."""

import numpy as np

from minisgl.messages import DecodeParams, Finish, Opened, Stats, Step, Text
from minisgl.tokenizer.decode import Decoder
from minisgl.tokenizer.detokenizer import NO_TOKEN, Detokenizer
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
