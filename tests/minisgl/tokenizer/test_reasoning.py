"""Reasoning apart from the answer, and its tokens counted."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisgl.messages import Thinking
from minisgl.tokenizer.reasoning import ReasoningCounter, ReasoningSplitter

MAY, OPEN, NONE = Thinking.MAY, Thinking.OPEN, Thinking.NONE


def split(thinking: Thinking, *pieces: str, keeps_layout: bool = False) -> tuple[str, str]:
    splitter = ReasoningSplitter(thinking, keeps_layout=keeps_layout)
    parts = [splitter.feed(piece) for piece in pieces] + [splitter.end()]
    return "".join(reasoning for reasoning, _ in parts), "".join(answer for _, answer in parts)


@pytest.mark.parametrize(
    ("thinking", "text", "parts"),
    [
        (MAY, "<think>\nwhy\n</think>\n\nso", ("why", "so")),
        (MAY, "\n<think>why</think>so\n", ("why", "so\n")),
        (MAY, " no reason", ("", " no reason")),
        (MAY, "so <think>why</think>", ("", "so <think>why</think>")),
        (MAY, "<thin", ("", "<thin")),
        (MAY, "<think>\n\n</think>\n\nso", ("", "so")),
        (OPEN, "why\n\nelse </ \n</think> so </think>", ("why\n\nelse </", "so </think>")),
        (OPEN, "<think>why</think>so", ("why", "so")),
        (OPEN, "why is <think> \n", ("why is <think> \n", "")),
        (OPEN, "why</thi", ("why</thi", "")),
        (NONE, "<think>why</think> so", ("", "<think>why</think> so")),
    ],
)
def test_reasoning_stands_before_the_answer(thinking: Thinking, text: str, parts: tuple[str, str]) -> None:
    assert split(thinking, text) == split(thinking, *text) == parts


TEXTS = st.lists(st.sampled_from(["<think>", "</think>", "</", "<th", " ", "\n", "a"]) | st.text(max_size=3)).map(
    "".join
)


@given(st.sampled_from(Thinking), TEXTS, st.booleans(), st.data())
def test_any_cut_gives_the_same(thinking: Thinking, text: str, keeps_layout: bool, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
    parts = split(thinking, text, keeps_layout=keeps_layout)
    assert split(thinking, *pieces, keeps_layout=keeps_layout) == split(thinking, *text, keeps_layout=keeps_layout)
    assert split(thinking, *pieces, keeps_layout=keeps_layout) == parts
    if keeps_layout:
        assert "".join(parts) == text


@pytest.mark.parametrize(
    ("thinking", "pieces", "count"),
    [
        (OPEN, ["wh", "y", "", "</think>", "\n", "so"], 4),
        (OPEN, ["why</", "think>so", "!"], 2),
        (OPEN, ["why"], 1),
        (MAY, ["<think>", "why", "</think>", "so"], 3),
        (MAY, ["\n", "<thi", "nk>", "why"], 4),
        (MAY, ["<thi", "s", " is"], 0),
        (NONE, ["<think>"], 0),
    ],
)
def test_tokens_count_up_to_the_one_that_completes_the_mark(thinking: Thinking, pieces: list[str], count: int) -> None:
    counter = ReasoningCounter(thinking)
    for piece in pieces:
        counter.add(piece)
    assert counter.num_tokens == count
