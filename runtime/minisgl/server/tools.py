"""The tools of a chat request: their fields, their bounds, and what the chat template is told of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import jsonschema_rs
import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator

from minisgl.errors import RequestError

MOST_TOOLS = 128  # as OpenAI
MOST_BYTES = 256 * 1024  # of all tools' JSON: they stand in the prompt, and in the grammar where calls are forced
DEEPEST = 100  # objects and lists of a schema within each other, where encoders give up at some hundreds
NAME = r"^[a-zA-Z0-9_-]{1,64}$"  # as OpenAI


class Part(BaseModel):
    """Base: JSON types are taken as they are, what we do not know passes."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)


def valid_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema as it is. Raises ValueError for one that is none."""
    if is_deep(schema, DEEPEST):
        raise ValueError(f"no JSON schema: it is nested more than {DEEPEST} levels deep")
    try:
        # Without `$schema`: a dialect that is not known would be fetched from wherever it says.
        jsonschema_rs.meta.validate({key: value for key, value in schema.items() if key != "$schema"})
    except (jsonschema_rs.ValidationError, ValueError, RecursionError) as error:
        where = ".".join(map(str, getattr(error, "instance_path", ()))) or "the schema"
        raise ValueError(f"no JSON schema: {where[:100]}: {getattr(error, 'message', error)!s:.200}") from None
    return schema


class Function(Part):
    """What may be called. `parameters`: the JSON schema of its arguments; unset: it takes none."""

    name: Annotated[str, Field(pattern=NAME)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None  # true: the model cannot write other arguments than those of the schema

    @field_validator("parameters")
    @classmethod
    def is_schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema is None:
            return schema
        if schema.get("type", "object") != "object":
            raise ValueError("a function's arguments are an object: type should be 'object'")
        return valid_schema(schema)


class Tool(Part):
    """One tool; functions are the only kind."""

    type: Literal["function"]
    function: Function

    def for_template(self) -> dict[str, Any]:
        """As OpenAI writes it, because that is what templates were written for."""
        told = self.function.model_dump(exclude_none=True, exclude={"strict"})
        return {"type": "function", "function": told}


class NamedFunction(Part):
    """The function that must be called."""

    name: Annotated[str, Field(pattern=NAME)]


class NamedChoice(Part):
    """One tool must be called."""

    type: Literal["function"]
    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedChoice


class CalledFunction(Part):
    """A call that the model has made: `arguments` is the JSON of an object; some clients send the object itself."""

    name: Annotated[str, Field(pattern=NAME)]
    arguments: str | dict[str, Any] | None = None

    @field_validator("arguments")
    @classmethod
    def is_object(cls, arguments: str | dict[str, Any] | None) -> str:
        if isinstance(arguments, dict):
            if is_deep(arguments, DEEPEST):
                raise ValueError(f"the arguments of a call are nested more than {DEEPEST} levels deep")
            return msgspec.json.encode(arguments).decode()
        if not arguments:
            return "{}"
        try:
            msgspec.json.decode(arguments, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(f"the arguments of a call should be the JSON of an object: {error}") from None
        return arguments


class ToolCall(Part):
    """A call in an assistant's message."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


def is_deep(value: Any, most: int) -> bool:
    """Whether containers are within each other more than `most` times."""
    level = [value]
    for _ in range(most):
        inner = [
            list(item.values()) if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)
        ]
        if not inner:
            return False
        level = [item for items in inner for item in items]
    return any(isinstance(item, dict | list) for item in level)


def check_tools(tools: list[Tool] | None, choice: ToolChoice | None) -> None:
    """Raises RequestError for tools that do not go together, or a choice that none of them is."""
    names = [tool.function.name for tool in tools or ()]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise _wrong(f"tools: the function {twice!r} is there twice; give each a name of its own", "tools")
    size = len(msgspec.json.encode([tool.model_dump() for tool in tools or ()]))
    if size > MOST_BYTES:
        raise _wrong(f"tools: {size} bytes of JSON are more than {MOST_BYTES}; send fewer or shorter ones", "tools")
    if choice not in (None, "none", "auto") and not names:
        raise _wrong("tool_choice: there are no tools to choose from; send tools", "tool_choice")
    if isinstance(choice, NamedChoice) and choice.function.name not in names:
        raise _wrong(f"tool_choice: none of the tools is {choice.function.name!r}", "tool_choice")


def _wrong(message: str, param: str) -> RequestError:
    return RequestError(message, code="invalid_value", param=param)
