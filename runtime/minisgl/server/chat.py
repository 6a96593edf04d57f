"""What a chat request asks for: what its prompt is made of, and how its answer is read."""

from __future__ import annotations

from typing import Any

from minisgl.errors import RequestError
from minisgl.messages import Thinking, Tokenize
from minisgl.server.answer.grammar import Callee, CallGrammar, GrammarError, check
from minisgl.server.answer.reader import Reading
from minisgl.server.openai import ChatRequest
from minisgl.server.tools import NamedChoice, Tool


def words_of(body: ChatRequest) -> Tokenize:
    """Messages and tools for the chat template."""
    args: dict[str, Any] = dict(body.chat_template_kwargs or {})
    if tools := usable_tools(body):
        args["tools"] = [tool.for_template() for tool in tools]
    return Tokenize(0, messages=[message.for_template() for message in body.messages], template_args=args)


def reading_of(body: ChatRequest, tool_parser: str | None, reasoning_parser: str | None) -> Reading | None:
    """How the answers are read with the model's parsers; None: as they are. Raises RequestError for tools without."""
    tools = usable_tools(body)
    if tools and tool_parser is None:
        raise RequestError(
            "tools are not served with this model: its chat template tells of no format of calls that is known; "
            "the server's --tool-call-parser says which it is",
            code="unsupported_parameter",
            param="tools",
        )
    if not tools and reasoning_parser is None:
        return None
    return Reading(
        parser=tool_parser if tools else None,
        reasoning=reasoning_parser,
        names=frozenset(tool.function.name for tool in tools),
        parallel=body.parallel_tool_calls is not False,
        calls=grammar_of(body, tool_parser),
        separate=body.separate_reasoning is not False and body.include_reasoning is not False,
    )


def check_calls(calls: CallGrammar) -> None:
    """Raises RequestError if no model can be held to these calls. Takes its time with large schemas."""
    try:
        check(calls.lark(Thinking.NONE))
    except GrammarError as error:
        raise RequestError(f"tools: the calls cannot be held: {error}", code="invalid_value", param="tools") from None
    except ModuleNotFoundError:
        message = "tools: calls can only be held where the package llguidance is installed; send tool_choice auto"
        raise RequestError(message, code="unsupported_parameter", param="tools") from None


def usable_tools(body: ChatRequest) -> list[Tool]:
    """The tools that may be called; a model that must not call any is not told of them."""
    return [] if body.tool_choice == "none" else body.tools or []


def grammar_of(body: ChatRequest, tool_parser: str | None) -> CallGrammar | None:
    """What the model is held to; None: it writes what it likes. Free text, where only strict calls are held."""
    tools, choice = usable_tools(body), body.tool_choice
    is_forced = choice not in (None, "none", "auto")
    if not tools or tool_parser is None or not (is_forced or any(tool.function.strict for tool in tools)):
        return None
    name = choice.function.name if isinstance(choice, NamedChoice) else None
    functions = [tool.function for tool in tools if name in (None, tool.function.name)]
    callees = [Callee(function.name, function.parameters, bool(function.strict)) for function in functions]
    return CallGrammar(tool_parser, callees, is_forced, body.parallel_tool_calls is not False and name is None)
