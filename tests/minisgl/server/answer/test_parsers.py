"""Tool calls out of texts: what is a call, what is content, and that the pieces a text comes in change nothing."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisgl.server.answer.events import Arguments, CallStarted, Content, Event
from minisgl.server.answer.parsers import PARSERS

NAMES = frozenset({"get_weather", "f", "no-args"})
Folded = tuple[str, list[tuple[str, str]]]


def read(kind: str, *pieces: str, parallel: bool = True) -> tuple[Folded, bool]:
    """Content and (name, arguments) of each call, and whether the answer has called."""
    parser = PARSERS[kind](NAMES, parallel=parallel, new_id=lambda: "id")
    events = [event for piece in pieces for event in parser.feed(piece)] + parser.end()
    return fold(events), parser.has_called


def fold(events: list[Event]) -> Folded:
    content, calls = "", []
    for event in events:
        match event:
            case Content(text):
                assert text
                content += text
            case CallStarted(index, _, name):
                assert index == len(calls), "calls are numbered in their order"
                calls.append((name, ""))
            case Arguments(index, text):
                assert text
                assert index == len(calls) - 1, "arguments are those of the call that has begun last"
                calls[index] = (calls[index][0], calls[index][1] + text)
    return content, calls


PARIS = '{"city": "Paris"}'
CALLS: list[tuple[str, str, str, list[tuple[str, str]]]] = [
    ("hermes", f'<tool_call>\n{{"name": "f", "arguments": {PARIS}}}\n</tool_call>', "", [("f", PARIS)]),
    (
        "qwen25",
        f'Let me see.\n<tool_call>\n{{"name": "f", "arguments": {PARIS}}}\n</tool_call>\n<tool_call>'
        '{"name": "no-args", "arguments": {}}</tool_call>\n',
        "Let me see.",
        [("f", PARIS), ("no-args", "{}")],
    ),
    ("hermes", f'<tool_call>{{"arguments": {PARIS}, "name": "f"}}</tool_call>', "", [("f", PARIS)]),
    ("hermes", '<tool_call>{"name": "f"}</tool_call>', "", [("f", "{}")]),
    ("hermes", '<tool_call>{"name": "f", "arguments": null}</tool_call>', "", [("f", "{}")]),
    ("hermes", '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [("f", '{"a": 1}')]),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "}</tool_call>\\""}}</tool_call>', "",
     [("f", '{"a": "}</tool_call>\\""}')]),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1}, "id": "7"}</tool_call> done', "done",
     [("f", '{"a": 1}')]),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": [1, {"b": 2}]}}', "", [("f", '{"a": [1, {"b": 2}]}')]),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call>', "", [("f", '{"a": 1}')]),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1</tool_call>', "", [("f", '{"a": 1')]),
    ("llama3", f'{{"name": "f", "parameters": {PARIS}}}', "", [("f", PARIS)]),
    ("llama3", f'<|python_tag|>{{"name": "f", "parameters": {PARIS}}}; {{"name": "no-args", "parameters": {{}}}}', "",
     [("f", PARIS), ("no-args", "{}")]),
    ("llama3", f'\n{{"type": "function", "name": "f", "arguments": {PARIS}}}\n{{"name": "f", "parameters": {{}}}}', "",
     [("f", PARIS), ("f", "{}")]),
    ("llama3", f'{{"name": "f", "parameters": {PARIS}}} and that is it', "and that is it", [("f", PARIS)]),
    ("pythonic", '[f(city="Paris")]', "", [("f", PARIS)]),
    ("pythonic", " [ f( a = 1 , b=[True, None, 'x'] ) , no-args() ]\n", "",
     [("f", '{"a": 1, "b": [true, null, "x"]}'), ("no-args", "{}")]),
    ("pythonic", "[f(a=[1e999])]", "", [("f", '{"a": [1e999]}')]),
    ("pythonic", "<|python_start|>[f(a=-1.5, b={'k': (1, 2)}, c=true)]", "",
     [("f", '{"a": -1.5, "b": {"k": [1, 2]}, "c": true}')]),
    ("pythonic", r"""[f(a="\ud83d\ude00 )]\"", b='\ud83d\ude00')]""", "",
     [("f", r'{"a": "\ud83d\ude00 )]\"", "b": "😀"}')]),
]  # fmt: skip
CONTENT = [
    ("hermes", 'Hello <tool and {"name": "f"} \n'),
    ("hermes", "<tool_call>"),
    ("hermes", '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "arguments": [1]}</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "arguments": "no JSON"}</tool_call>'),
    ("hermes", '<tool_call>{"name": 7, "arguments": {}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "argum'),
    ("hermes", "<tool_call>{'name': 'f', 'arguments': {}}</tool_call>"),
    ("hermes", "<tool_call>" + '{"a":' * 3000 + "1" + "}" * 3000 + "</tool_call>"),
    ("llama3", 'Sure: {"name": "f", "parameters": {}}'),
    ("llama3", '{"name": "unknown", "parameters": {}} '),
    ("llama3", '<|python_tag|>{"name": "f", "param'),
    ("llama3", '{"answer": 42}'),
    ("llama3", " "),
    ("pythonic", "[unknown(a=1)]"),
    ("pythonic", "[f(a=open('x'))]"),
    ("pythonic", "[f(1)]"),
    ("pythonic", "[f(a=1, a=2)]"),
    ("pythonic", "[f(**{'a': 1})]"),
    ("pythonic", "[f(a=(1e999,))]"),
    ("pythonic", "[f(a='\\ud800')]"),
    ("pythonic", "[f(a=b'x')]"),
    ("pythonic", "[f(a=" + "(" * 3000 + ")" * 3000 + ")]"),
    ("pythonic", "[f(a=" + "9" * 5000 + ", b='')]"),
    ("pythonic", "[f(a=1"),
    ("pythonic", "[1, 2, 3] are numbers\n"),
    ("pythonic", "[f"),
]


@pytest.mark.parametrize(("kind", "text", "content", "calls"), CALLS)
def test_calls_in_the_models_own_format(kind: str, text: str, content: str, calls: list[tuple[str, str]]) -> None:
    for pieces in ([text], [*text], [text[:9], text[9:]]):
        assert read(kind, *pieces) == ((content, calls), True)


@pytest.mark.parametrize(("kind", "text"), CONTENT)
def test_what_is_no_call_is_content_to_the_last_character(kind: str, text: str) -> None:
    for pieces in ([text], [*text]):
        assert read(kind, *pieces) == ((text, []), False)


def test_a_call_that_cannot_be_read_hides_no_other() -> None:
    text = '<tool_call>{"name": <tool_call>{"name": "f", "arguments": {}}</tool_call>'
    assert read("hermes", text) == (('<tool_call>{"name":', [("f", "{}")]), True)
    assert read("pythonic", "[f(a=1), f(2)]") == ((", f(2)]", [("f", '{"a": 1}')]), True)


def test_a_call_that_is_cut_off_is_told_as_far_as_it_goes() -> None:
    text = '<tool_call>{"name": "f", "arguments": {"city": "Par'
    assert read("hermes", text) == (("", [("f", '{"city": "Par')]), False)


def test_arguments_come_as_they_are_written() -> None:
    parser = PARSERS["hermes"](NAMES)
    parser.feed('<tool_call>{"name": "f", "arguments": {')
    assert parser.feed('"city": "Par') == [Arguments(0, '"city": "Par')]


@pytest.mark.parametrize("kind", ["hermes", "llama3", "pythonic"])
def test_without_parallel_calls_only_the_first_is_told(kind: str) -> None:
    objects = {
        "hermes": '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>' * 2,
        "llama3": ";".join(['{"name": "f", "parameters": {"a": 1}}'] * 2),
        "pythonic": "[f(a=1), f(a=2)]",
    }
    folded, has_called = read(kind, objects[kind], parallel=False)
    assert (folded, has_called) == (("", [("f", '{"a": 1}')]), True)


FRAGMENTS = st.sampled_from(
    ["<tool_call>", "</tool_call>", '{"name": "f", "arguments": {"a": "b"}}', '{"name": "',
     'f", ', '"parameters": {', "}",
     "<|python_tag|>", ";", "[", "]", "f(a=1)", "get_weather(", ", ", "a='x'", ")", "<", " ", "\n", '"', "\\", "é😀"]
)  # fmt: skip
TEXTS = st.one_of(
    st.lists(FRAGMENTS | st.text(max_size=3), max_size=12).map("".join),
    st.sampled_from([text for _, text, *_ in CALLS]),
    st.builds(lambda a, b: a[:-7] + b, st.sampled_from([text for _, text, *_ in CALLS]), st.text(max_size=9)),
)


@given(st.sampled_from(sorted(PARSERS)), TEXTS, st.data())
def test_any_cut_of_any_text_gives_the_same(kind: str, text: str, data: st.DataObject) -> None:
    whole = read(kind, text)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    assert read(kind, *(text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)]))) == whole
    assert read(kind, *text) == whole
    (content, calls), _ = whole
    assert calls or content == text, "without a call nothing is lost"


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text("abcxyz_", min_size=1, max_size=6), JSON, max_size=4)


@given(st.lists(OBJECTS, min_size=1, max_size=3), st.booleans(), st.booleans())
def test_whatever_the_arguments_are_they_come_back(
    objects: list[dict[str, Any]], ascii_only: bool, close: bool
) -> None:
    texts = [json.dumps(value, ensure_ascii=ascii_only) for value in objects]
    calls = [("f", text) for text in texts]
    hermes = "\n".join(f'<tool_call>\n{{"name": "f", "arguments": {text}}}\n</tool_call>' for text in texts)
    llama = (";" if close else "\n").join(f'{{"name": "f", "parameters": {text}}}' for text in texts)
    assert read("hermes", *hermes) == read("llama3", llama) == (("", calls), True)
    python = ", ".join("f(" + ", ".join(f"{k}={v!r}" for k, v in value.items()) + ")" for value in objects)
    (content, found), _ = read("pythonic", f"[{python}]")
    if all(name.isidentifier() and name not in ("as", "is") for value in objects for name in value):
        assert content == ""
        assert [json.loads(text) for _, text in found] == objects
