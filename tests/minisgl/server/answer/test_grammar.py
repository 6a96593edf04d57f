"""Grammars of calls: what a constrained model can write, and that its parser reads all of it."""

import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from llguidance import LLMatcher, LLTokenizer

from minisgl.messages import Thinking
from minisgl.server.answer.events import Arguments, CallStarted, Content, Reasoning
from minisgl.server.answer.grammar import Callee, CallGrammar, GrammarError, behind_reasoning
from minisgl.server.answer.reader import AnswerReader, Reading
from support.words import EOS, byte_tokenizer

TOKENIZER = LLTokenizer(byte_tokenizer().to_str(), eos_token=EOS)
CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}
FUNCTIONS = (Callee("get_weather", CITY | {"additionalProperties": False}, True), Callee("now", None, False))
KINDS = ["hermes", "llama3", "pythonic"]


def grammar(kind: str, thinking: Thinking = Thinking.NONE, **fields: Any) -> str:
    return CallGrammar(**({"parser": kind, "functions": FUNCTIONS, "is_forced": True, "parallel": True} | fields)).lark(
        thinking
    )


def accepts(lark: str, text: str) -> bool:
    """Is it a whole answer?"""
    matcher = LLMatcher(TOKENIZER, lark, log_level=0)
    assert not matcher.get_error(), matcher.get_error()
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()


def write(lark: str, seed: int, length: int = 3000) -> str | None:
    """What a model without any sense writes, if it ends."""
    matcher, dice, written = LLMatcher(TOKENIZER, lark, log_level=0), random.Random(seed), bytearray()
    assert not matcher.get_error(), matcher.get_error()
    for _ in range(length):
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")[: EOS + 1]
        allowed = np.flatnonzero(bits).tolist()
        token = EOS if EOS in allowed and dice.random() < 0.5 else dice.choice(closing(allowed, dice))
        if token == EOS:
            return written.decode()
        assert matcher.consume_token(token)
        written.append(token)
    return None


def closing(allowed: list[int], dice: random.Random) -> list[int]:
    """Prefer what ends strings and lists, so that most answers end."""
    ends = [token for token in allowed if token < 256 and chr(token) in '"]})']
    return ends if ends and dice.random() < 0.5 else allowed


def calls_of(kind: str, text: str, thinking: Thinking = Thinking.NONE) -> tuple[str, list[list[str]]]:
    reader = AnswerReader(Reading(kind, "qwen3", frozenset(f.name for f in FUNCTIONS), thinking=thinking))
    content, calls = "", []
    for event in reader.feed(text) + reader.end():
        match event:
            case CallStarted(_, _, name):
                calls.append([name, ""])
            case Arguments(index, piece):
                calls[index][1] += piece
            case Content(piece):
                content += piece
            case Reasoning():
                pass
    return content, calls


ONE = {
    "hermes": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
    "llama3": '{"name": "get_weather", "parameters": {"city": "Paris"}}',
    "pythonic": '[get_weather(city="Paris")]',
}
TWO = {
    "hermes": ONE["hermes"] + '\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
    "llama3": ONE["llama3"] + '; {"name": "now", "parameters": {}}',
    "pythonic": '[get_weather(city="Paris", days=3), now()]',
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_forced_answer_is_calls_and_nothing_else(kind: str) -> None:
    forced = grammar(kind)
    assert accepts(forced, ONE[kind])
    assert accepts(forced, TWO[kind])
    assert accepts(grammar(kind, parallel=False), ONE[kind])
    for text in ("", "Hello", " " + ONE[kind], ONE[kind] + "!", ONE[kind].replace("Paris", '"'), ONE[kind][:-1]):
        assert not accepts(forced, text)
    for wrong in ("city", "get_weather"):
        assert not accepts(forced, ONE[kind].replace(wrong, "other"))
    assert not accepts(grammar(kind, parallel=False), TWO[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_a_free_answer_is_text_or_calls_that_fit(kind: str) -> None:
    free = grammar(kind, is_forced=False)
    for text in ("", "Hello, <you> and {you}\n[sic]", ONE[kind], TWO[kind]):
        assert accepts(free, text)
    assert not accepts(free, ONE[kind].replace("city", "town"))


@pytest.mark.parametrize("kind", KINDS)
def test_reasoning_comes_first_where_the_model_thinks(kind: str) -> None:
    thought = "Paris? <tool_call>{[\n"
    assert accepts(grammar(kind, Thinking.OPEN), f"{thought}</think>\n\n{ONE[kind]}")
    assert not accepts(grammar(kind, Thinking.OPEN), ONE[kind])
    may = grammar(kind, Thinking.MAY)
    assert accepts(may, f"<think>{thought}</think>\n\n{ONE[kind]}")
    assert accepts(may, ONE[kind])
    assert not accepts(may, f"<think>{thought}</think>\n\nParis!")
    free = grammar(kind, Thinking.OPEN, is_forced=False)
    assert accepts(free, f"{thought}</think>\n\nParis!")
    assert accepts(free, f"{thought}</think>\n\n{ONE[kind]}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_whatever_a_model_writes_its_calls_are_read_and_fit(kind: str, seed: int) -> None:
    text = write(grammar(kind, Thinking.MAY), seed)
    if text is None:
        return
    content, calls = calls_of(kind, text, Thinking.MAY)
    assert content == ""
    assert calls
    for name, arguments in calls:
        schema = {function.name: function.arguments() for function in FUNCTIONS}[name]
        Draft202012Validator(schema).validate(json.loads(arguments))


def test_most_of_them_end() -> None:
    ended = [text for kind in KINDS for seed in range(6) if (text := write(grammar(kind), seed)) is not None]
    assert len(ended) > 9


@pytest.mark.parametrize(
    ("inner", "answer"),
    [
        (LLMatcher.grammar_from_json_schema('{"type": "object", "maxProperties": 0}'), "{}"),
        (LLMatcher.grammar_from_regex("ab*"), "abb"),
        ('start: "a" | "b"', "b"),
    ],
)
def test_another_grammar_holds_the_answer_behind_the_reasoning(inner: str, answer: str) -> None:
    assert behind_reasoning(inner, Thinking.NONE) == inner
    opened, may = behind_reasoning(inner, Thinking.OPEN), behind_reasoning(inner, Thinking.MAY)
    thought = "Why {not}?</think>\n\n"
    assert accepts(opened, thought + answer)
    assert accepts(may, "<think>" + thought + answer)
    assert accepts(may, answer)
    for wrong in (answer, thought, thought + "x", thought + answer + "!"):
        assert not accepts(opened, wrong)
    assert not accepts(may, "<think>" + thought + "x")


PROPERTIES = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.sampled_from(
        [{"type": "integer"}, {"type": "boolean"}, {"enum": ["x", None, 1.5]}, {"$ref": "#/$defs/d"}, True]
    ),
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), PROPERTIES, st.data())
def test_schemas_of_all_kinds(kind: str, properties: dict[str, Any], data: st.DataObject) -> None:
    required = data.draw(st.sets(st.sampled_from(sorted(properties)))) if properties else set()
    schema = {
        "type": "object",
        "properties": properties,
        "required": sorted(required),
        "additionalProperties": False,
        "$defs": {"d": {"type": "integer"}},
    }
    lark = grammar(kind, functions=[Callee("now", schema, True)], parallel=False)
    text = write(lark, data.draw(st.integers(0, 9)), 400)
    if text is not None:
        [[_, arguments]] = calls_of(kind, text)[1]
        Draft202012Validator(schema).validate(json.loads(arguments))


@pytest.mark.parametrize(
    "schema", [{"properties": {"two words": {}}}, {"properties": {"class": {}}}, {"anyOf": [{"required": ["a"]}]}]
)
def test_what_is_no_python_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(GrammarError):
        grammar("pythonic", functions=[Callee("f", schema, True)])
    assert grammar("hermes", functions=[Callee("f", schema, True)])
