"""Stop strings against an oracle that sees the whole text, one character at a time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisgl.tokenizer.stop import StopScanner
from support.words import stopped


def scanned(pieces: list[str], stops: tuple[str, ...], include_stop: bool = False) -> tuple[list[str], str | None]:
    scanner = StopScanner(stops, include_stop)
    shown = []
    for piece in pieces:
        shown.append(scanner.feed(piece))
        if scanner.stopped_by is not None:
            return shown, scanner.stopped_by
    return [*shown, scanner.flush()], None


few = st.text("abc", max_size=6)


@settings(max_examples=1500, deadline=None)
@given(st.lists(few, max_size=8), st.lists(st.text("abc", min_size=1, max_size=4), max_size=4), st.booleans())
def test_the_result_is_the_oracles_however_the_text_is_cut(
    pieces: list[str], stops: list[str], include_stop: bool
) -> None:
    shown, stop = scanned(pieces, tuple(stops), include_stop)
    assert ("".join(shown), stop) == stopped("".join(pieces), tuple(stops), include_stop)


@settings(max_examples=500, deadline=None)
@given(st.lists(few, max_size=8), st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=4))
def test_only_a_beginning_of_a_stop_string_is_held_back(pieces: list[str], stops: list[str]) -> None:
    scanner = StopScanner(tuple(stops))
    fed = shown = ""
    for piece in pieces:
        fed, shown = fed + piece, shown + scanner.feed(piece)
        if scanner.stopped_by is not None:
            return
        held = fed[len(shown) :]
        assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_a_stop_string_over_several_pieces_does_not_leak(size: int) -> None:
    text = "The answer is 42.###END### and more"
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    shown, stop = scanned(pieces, ("###END###",))
    assert "".join(shown) == "The answer is 42."
    assert stop == "###END###"


def test_without_stop_strings_nothing_is_held() -> None:
    assert StopScanner(()).feed("anything") == "anything"
