"""Structured outputs: OpenAI's `response_format` and vLLM's `structured_outputs`, to a grammar's text."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from minisgl.errors import RequestError
from minisgl.server.answer.grammar import LAYOUT, GrammarError, check
from minisgl.server.tools import NAME, Part, valid_schema

LONGEST_GRAMMAR = 64 * 1024  # characters of a regular expression or a grammar
MOST_CHOICES, LONGEST_CHOICE = 1000, 1000

Words = Annotated[str, Field(min_length=1, max_length=LONGEST_GRAMMAR)]


class TextFormat(Part):
    """Whatever the model likes."""

    type: Literal["text"]


class ObjectFormat(Part):
    """Some JSON object."""

    type: Literal["json_object"]


class NamedSchema(Part):
    """`name` is for the client alone. The answer always follows the schema, whatever `strict` says."""

    name: Annotated[str, Field(pattern=NAME)]
    description: str | None = None
    of: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None

    @field_validator("of")
    @classmethod
    def is_schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if schema is None else valid_schema(schema)


class SchemaFormat(Part):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")]


class StructuredOutputs(Part):
    """vLLM's: exactly one of these. `grammar` is Lark's language or GBNF."""

    of: dict[str, Any] | None = Field(None, alias="json")
    regex: Words | None = None
    choice: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=LONGEST_CHOICE)]],
            Field(min_length=1, max_length=MOST_CHOICES),
        ]
        | None
    ) = None
    grammar: Words | None = None
    json_object: Literal[True] | None = None

    @field_validator("of")
    @classmethod
    def is_schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if schema is None else valid_schema(schema)

    @model_validator(mode="after")
    def is_one(self) -> Self:
        asked = [
            name for name in ("of", "regex", "choice", "grammar", "json_object") if getattr(self, name) is not None
        ]
        if len(asked) != 1:
            raise ValueError("send exactly one of json, regex, choice, grammar and json_object")
        return self


def grammar_of(wanted: TextFormat | ObjectFormat | SchemaFormat | StructuredOutputs | None) -> str:
    """The text for llguidance; empty: the answer is free. Raises GrammarError."""
    match wanted:
        case ObjectFormat() | StructuredOutputs(json_object=True):
            return of_schema({"type": "object"})
        case SchemaFormat():
            return of_schema(wanted.json_schema.of or {"type": "object"})
        case StructuredOutputs(of=dict() as schema):
            return of_schema(schema)
        case StructuredOutputs(choice=list() as choices):
            return "start: " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices) + "\n"
        case StructuredOutputs():
            return _of_words("regex" if wanted.regex else "grammar", wanted.regex or wanted.grammar or "")
    return ""


def of_schema(schema: dict[str, Any]) -> str:
    """One layout: a weak model cannot lose itself in spaces. What llguidance does not support is refused."""
    return f"start: %json {json.dumps({**schema, 'x-guidance': {**LAYOUT, 'lenient': False}})}\n"


def _of_words(kind: Literal["regex", "grammar"], words: str) -> str:
    from llguidance import grammar_from

    try:
        grammar: str = grammar_from(kind, words)
    except ValueError as error:
        raise GrammarError(str(error)[:300]) from None
    return grammar


def checked(wanted: TextFormat | ObjectFormat | SchemaFormat | StructuredOutputs | None, param: str) -> str:
    """The same text, checked: tens of milliseconds for a large one. Raises RequestError about `param`."""
    try:
        if grammar := grammar_of(wanted):
            check(grammar)
    except GrammarError as error:
        message = f"{param}: no answer can be held to it: {error}"
        raise RequestError(message, code="invalid_value", param=param) from None
    except ModuleNotFoundError:
        message = f"{param} needs the package llguidance beside this server: pip install llguidance"
        raise RequestError(message, code="unsupported_parameter", param=param) from None
    return grammar
