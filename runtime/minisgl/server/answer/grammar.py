"""The grammar of an answer whose calls are constrained, in the format that the model's parser reads: Lark's language.

    forced   a call must come: `tool_choice` is required, or names a function
    free     text, and strict calls where the model makes some
Where the model thinks, its reasoning comes first and is free.
"""

from __future__ import annotations

import json
import keyword
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minisgl.messages import Thinking

# One way to write JSON: a weak model cannot lose itself in spaces, and ours is that of the models' templates.
LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
ANY_ARGUMENTS: dict[str, Any] = {"type": "object"}
SHARED = ("$defs", "definitions")  # what a property's schema may refer to
THOUGHT = r"""
thought[lazy]: /(.|\n)*/ "</think>"
gap: /\n{0,2}/"""


class GrammarError(ValueError):
    """These arguments cannot be written in this format."""


def behind_reasoning(grammar: str, thinking: Thinking) -> str:
    """The same grammar for a model that thinks first: it holds the answer, not the reasoning."""
    if thinking is Thinking.NONE:
        return grammar
    first, *others = (
        json.loads(grammar)["grammars"] if grammar.lstrip().startswith("{") else [{"lark_grammar": grammar}]
    )
    start = "thought gap @answer" if thinking is Thinking.OPEN else '("<think>" thought gap)? @answer'
    outer = {"lark_grammar": f"start: {start}{THOUGHT}"}
    return json.dumps({"grammars": [outer, {**first, "name": "answer"}, *others]})


def check(lark: str) -> None:
    """Raises GrammarError for what llguidance cannot hold a model to: by its own limits, in tens of milliseconds.

    Also for what nobody can write, as a schema that contains itself: the first of its masks is empty. Bytes take the
    place of the model's tokens.
    """
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer  # 3 MB that only requests with held calls need

    matcher = LLMatcher(LLTokenizer("byte"), lark, log_level=0, limits=LLParserLimits(verbose_errors=False))
    if not matcher.is_error():
        matcher.compute_bitmask()
    if matcher.is_error():
        complaint = matcher.get_error()
        sentence = complaint.splitlines()[0].partition("JSON schema: ")
        reason = sentence[2] or sentence[0]
        raise GrammarError("there is no such answer" if reason.startswith("NoExtension") else reason[:300])


@dataclass(frozen=True)
class Callee:
    """A function that may be called. `is_exact`: its schema is kept whole, or refused."""

    name: str
    schema: dict[str, Any] | None
    is_exact: bool

    def arguments(self) -> dict[str, Any]:
        """The schema for llguidance. What it does not support is left out where that was not promised to be kept."""
        schema = NO_ARGUMENTS if self.schema is None else self.schema
        return {**schema, "type": "object", "x-guidance": {**LAYOUT, "lenient": not self.is_exact}}


@dataclass(frozen=True)
class CallGrammar:
    """What an answer with calls may look like."""

    parser: str
    functions: Sequence[Callee]
    is_forced: bool
    parallel: bool

    def lark(self, thinking: Thinking) -> str:
        """The grammar's text. Raises GrammarError."""
        body, rules = _FORMATS[self.parser](self)
        if thinking is Thinking.OPEN:
            start, rules = f"thought gap {body}", rules + THOUGHT
        elif thinking is Thinking.MAY and self.is_forced:
            start, rules = f'("<think>" thought gap)? {body}', rules + THOUGHT
        else:
            start = body
        return f"start: {start}\n{rules}\n"


def _hermes(asked: CallGrammar) -> tuple[str, str]:
    names, rules = _objects(asked.functions, "arguments")
    rules += f'\ncall: "\\n" ({names}) "\\n</tool_call>"'
    if not asked.is_forced:
        return "(head call)* tail", rules + '\nhead[lazy]: TEXT "<tool_call>"\ntail: TEXT\nTEXT: /(.|\\n)*/'
    return '"<tool_call>" call' + (r' ("\n<tool_call>" call)*' if asked.parallel else ""), rules


def _llama3(asked: CallGrammar) -> tuple[str, str]:
    names, rules = _objects(asked.functions, "parameters")
    rules += f"\ncall: {names}"
    calls = 'call ("; " call)*' if asked.parallel else "call"
    return _or_text(asked, calls, rules, "{")


def _pythonic(asked: CallGrammar) -> tuple[str, str]:
    rules = "\n".join(_keywords(i, function) for i, function in enumerate(asked.functions))
    rules += "\ncall: " + " | ".join(f"f{i}" for i in range(len(asked.functions)))
    calls = '"[" call (", " call)* "]"' if asked.parallel else '"[" call "]"'
    return _or_text(asked, calls, rules, "\\[")


def _or_text(asked: CallGrammar, calls: str, rules: str, first: str) -> tuple[str, str]:
    """Either calls, or a text that does not begin like one."""
    if asked.is_forced:
        return calls, rules
    return f"(text | {calls})", rules + f"\ntext: TEXT?\nTEXT: /\\s*[^\\s{first}](.|\\n)*/"


def _objects(functions: Sequence[Callee], arguments: str) -> tuple[str, str]:
    """The names of the rules, and one rule per function: an object with the name and its arguments."""
    rules = []
    for i, function in enumerate(functions):
        head = f'{{"name": {json.dumps(function.name)}, "{arguments}": '
        rules.append(f'f{i}: {_text(head)} %json {json.dumps(function.arguments())} "}}"')
    return " | ".join(f"f{i}" for i in range(len(functions))), "\n".join(rules)


def _keywords(number: int, function: Callee) -> str:
    """`f(a=…, b=…)`: the properties in their order, those that are not required may be left out.

    first_i: nothing is written yet, property i may be the next; rest_i: the same behind another one.
    """
    schema = function.arguments()
    unwritable = {"$ref", "anyOf", "oneOf", "allOf"} & set(schema)
    if unwritable:
        raise GrammarError(f"{function.name}: {min(unwritable)} beside the properties cannot be written as keywords")
    properties = schema.get("properties", {})
    rules = [f"f{number}: {_text(function.name + '(')} first{number}_0 {_text(')')}"]
    for i, (name, wanted) in enumerate(properties.items()):
        if not name.isidentifier() or keyword.iskeyword(name):
            raise GrammarError(f"{function.name}: the property {name[:60]!r} is no keyword of a call")
        value = {"not": {}} if wanted is False else {} if wanted is True else wanted
        value = {key: schema[key] for key in SHARED if key in schema} | value | {"x-guidance": schema["x-guidance"]}
        may_miss = name not in schema.get("required", ())
        this, after = f"{number}_{i}", f"{number}_{i + 1}"
        rules += [
            f"value{this}: {_text(name + '=')} %json {json.dumps(value)}",
            f"first{this}: value{this} rest{after}" + (f" | first{after}" if may_miss else ""),
            f'rest{this}: ", " value{this} rest{after}' + (f" | rest{after}" if may_miss else ""),
        ]
    end = f"{number}_{len(properties)}"
    return "\n".join([*rules, f'first{end}: ""', f'rest{end}: ""'])


def _text(literal: str) -> str:
    return json.dumps(literal, ensure_ascii=False)


_FORMATS = {"hermes": _hermes, "qwen25": _hermes, "llama3": _llama3, "pythonic": _pythonic}
