"""Llama 3.2 and 4, and others: an answer that is a list of calls in Python, `[f(city="Paris", days=3), g()]`.

A call is told when it is whole: only then its keywords can be JSON. Nothing is evaluated: values are literals.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from typing import Any

from minisgl.server.answer.brackets import Brackets
from minisgl.server.answer.parser import ToolParser

TAG = "<|python_start|>"  # Llama 4's, seen only where special tokens are shown
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
EVERYTHING = frozenset(map(chr, range(0x20, 0x7F))) | frozenset("\t\r\n")  # of Python, outside of strings
CONSTANTS = {"true": True, "false": False, "null": None}  # models mix the two languages


class PythonicParser(ToolParser):
    """start ──[──► call ──,──► call ──]──► text; what cannot be read is content, up to the end."""

    _is_list = _is_text = False
    _brackets: Brackets | None = None  # of the call that is being read
    _num_read = 0
    _lead = ""  # what stood before the call, if that turns out to be none

    def _step(self, *, is_end: bool) -> bool:
        if self._is_text:
            self._sink.content(self._text)
            self._text = ""
            return False
        moved = self._look() if self._brackets is None else self._read(self._brackets)
        if is_end and not moved:
            self._give_up()
            return True
        return moved

    def _look(self) -> bool:
        """For the next call: behind the tag and `[`, or behind `,`; `]` ends the list."""
        text = self._text.lstrip()
        if not self._is_list:
            if TAG.startswith(text):
                return False
            text = text.removeprefix(TAG).lstrip()
        opening = "," if self._is_list else "["
        if not text:
            return False
        if self._is_list and text[0] == "]":
            self._is_text, self._text = True, text[1:]
            return True
        name = text[1:].lstrip()
        found = NAME.match(name)
        if text[0] != opening or (name and not found):
            self._give_up()
        elif not found or found.end() == len(name):
            if found and not any(known.startswith(found[0]) for known in self._sink.names):
                self._give_up()
                return True
            return False
        elif name[found.end()] != "(" or found[0] not in self._sink.names:
            self._give_up()
        else:
            self._lead, self._text = self._text[: len(self._text) - len(name)], name
            self._brackets, self._num_read = Brackets("\"'", EVERYTHING), 0
        return True

    def _read(self, brackets: Brackets) -> bool:
        self._num_read = brackets.read(self._text, self._num_read)
        if not (brackets.is_closed or brackets.is_broken):
            return False
        name, _, arguments = self._text[: self._num_read].partition("(")
        read = None if brackets.is_broken else arguments_of(f"f({arguments}")
        if read is None:
            self._give_up()
            return True
        self._sink.start(name)
        self._sink.arguments(read)
        self._sink.end_call()
        self._is_list, self._brackets, self._text = True, None, self._text[self._num_read :]
        return True

    def _give_up(self) -> None:
        """All that is not told yet is content."""
        if self._brackets is not None:
            self._text, self._brackets = self._lead + self._text, None
        self._is_text = True


def arguments_of(call: str) -> str | None:
    """The JSON object of a call's keywords; None if it is no call with keywords and literal values only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a text is the model's
            expression = ast.parse(call, mode="eval").body
        if not isinstance(expression, ast.Call) or expression.args:
            return None
        values = {keyword.arg: _json_of(call, keyword.value) for keyword in expression.keywords}
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    if None in values or len(values) < len(expression.keywords):  # **more, or one keyword twice
        return None
    return "{" + ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {value}" for name, value in values.items()) + "}"


def _json_of(source: str, node: ast.expr) -> str:
    """A value that is JSON as it stands stays as it is; ValueError if it is no literal."""
    text = ast.get_source_segment(source, node) or ""
    try:
        json.loads(text, parse_constant=_refuse)  # which has no bounds for numbers, as JSON has none
    except ValueError:
        text = json.dumps(_value(node), ensure_ascii=False, allow_nan=False)
        text.encode()  # half a surrogate pair is no text
    return text


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=str() as text):
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        case ast.Constant(value=bool() | int() | float() | None as value):
            return value
        case ast.Name(id=name) if name in CONSTANTS:
            return CONSTANTS[name]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item) for item in items]
        case ast.Dict(keys=keys, values=values):
            pairs = [
                (_value(key) if key is not None else None, _value(value))
                for key, value in zip(keys, values, strict=True)
            ]
            if all(isinstance(key, str) for key, _ in pairs):
                return dict(pairs)
    raise ValueError(f"{type(node).__name__} is no literal")
