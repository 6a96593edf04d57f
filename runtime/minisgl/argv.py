"""Launch arguments to and from a command line: `parse_args(to_argv(spec)) == LaunchArgs(**spec)`.

Owns the spelling (`--max-running-requests=8`), the sentences for wrong values and the grouped `--help`. What an
argument means, its bounds and its default are `args`' business alone.
"""

from __future__ import annotations

import argparse
import difflib
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from minisgl.args import LaunchArgs, flags
from minisgl.errors import UsageError

EPILOG = """\
examples:
  python -m minisgl --model-path Qwen/Qwen3-0.6B
  python -m minisgl --model-path ./smollm2 --host 0.0.0.0 --port 1919 --page-size 16
  python -m minisgl --model-path Qwen/Qwen3-32B --tp 4 --num-pages 100000 --memory-ratio 0.85
"""


def spelling(field: str) -> str:
    """`max_running_requests` or `maxRunningRequests` -> `--max-running-requests`."""
    snake = "".join(f"_{char.lower()}" if char.isupper() else char for char in field)
    return "--" + snake.replace("_", "-")


def to_argv(spec: Mapping[str, Any]) -> list[str]:
    """Render the set keys of `spec` (camelCase or field names) as `--flag=value`, in the order of definition.

    The order does not depend on the mapping's, so that the same spec always gives the same bytes. A false boolean
    and a None are left out: both mean the default. Unknown keys raise UsageError.
    """
    names = {to_camel(field): field for field in LaunchArgs.model_fields}
    known = {names.get(key, key): value for key, value in spec.items()}
    if unknown := sorted(known.keys() - LaunchArgs.model_fields.keys()):
        raise UsageError(f"unknown launch argument {unknown[0]!r}{_suggest(unknown[0], names)}")
    tokens = []
    for field in LaunchArgs.model_fields:
        value = known.get(field)
        if value is True:
            tokens.append(spelling(field))
        elif value is not None and value is not False:
            tokens.append(f"{spelling(field)}={value}")
    return tokens


def parse_args(argv: Sequence[str]) -> LaunchArgs:
    """Read a command line. Raises UsageError with one sentence that names the flag, the value and the mend."""
    given = vars(build_parser().read(argv))
    if "model_path" not in given:
        raise UsageError("--model-path is missing; give a local folder or a Hugging Face id such as Qwen/Qwen3-0.6B")
    return validate(given)


def validate(values: Mapping[str, Any]) -> LaunchArgs:
    """Make LaunchArgs of field names or camelCase keys; raises UsageError with one sentence."""
    try:
        return LaunchArgs.model_validate(dict(values))
    except ValidationError as error:
        raise UsageError("; ".join(_sentence(detail) for detail in error.errors())) from None


def _sentence(detail: ErrorDetails) -> str:
    where = detail["loc"]
    if not where:  # a rule over several fields carries its own sentence
        return detail["msg"].removeprefix("Value error, ")
    name = str(where[0])
    if detail["type"] == "extra_forbidden":
        return f"unknown launch argument {name!r}{_suggest(name, LaunchArgs.model_fields)}"
    hint = ""
    if detail["type"] == "string_pattern_mismatch":
        hint = "; use one of auto, torch, fa, fa3, fi, or two of them as prefill,decode"
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    return f"{spelling(name)}={detail['input']}: {message}{hint}"


def _suggest(name: str, names: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


class Parser(argparse.ArgumentParser):
    """argparse that raises UsageError, knows no abbreviations and suggests the flag that was meant."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see python -m minisgl --help")

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse all of `argv`; an unknown token is an error that names the closest flag."""
        parsed, unknown = self.parse_known_args(argv)
        if unknown:
            flag = unknown[0].split("=")[0]
            close = difflib.get_close_matches(flag, list(self._option_string_actions), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UsageError(f"unknown argument {flag}{hint}; see python -m minisgl --help")
        return parsed


def build_parser() -> Parser:
    """The parser, without `--help`'s siblings (`--version`, `--print-args`): those are `__main__`'s business."""
    parser = Parser(
        prog="python -m minisgl",
        usage="python -m minisgl --model-path MODEL [option ...]",
        description="Serve a large language model over an OpenAI-compatible HTTP endpoint.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for field, flag in flags().items():
        group = groups.setdefault(flag.group, parser.add_argument_group(flag.group.lower()))
        info = LaunchArgs.model_fields[field]
        names = [spelling(field), *flag.aliases]
        if info.annotation is bool:
            group.add_argument(*names, dest=field, action="store_true", help=flag.help)
            continue
        default = "" if info.is_required() or info.default is None else f" [{info.default}]"
        text = f"{flag.help}{default}".replace("%", "%%")
        group.add_argument(*names, dest=field, metavar=_metavar(info.annotation), help=text)
    return parser


def _metavar(annotation: Any) -> str:
    """What stands behind the flag in `--help`: the choices, or N, X, TEXT."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    kind = next(kind for kind in kinds if kind is not type(None))
    if get_origin(kind) is Literal:
        return "{" + ",".join(get_args(kind)) + "}"
    return {int: "N", float: "X"}.get(kind, "TEXT")
