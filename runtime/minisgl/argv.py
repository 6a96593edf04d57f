"""Launch arguments to and from a command line: `parse_args(to_argv(spec)) == LaunchArgs(**spec)`.

Owns the spelling (`--max-running-requests=8`), the sentences for wrong values and the grouped `--help`. What an
argument means, its bounds and its default are `args`' business alone.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NoReturn, get_args

from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from minisgl.args import LaunchArgs, flags
from minisgl.errors import UsageError

SEE = "see python -m minisgl --help"
IS_FLAG = re.compile(r"--?[A-Za-z]")  # -1 is a number

EPILOG = """\
examples:
  python -m minisgl --model-path Qwen/Qwen3-0.6B                   a model of the Hugging Face hub
  python -m minisgl --model-path Qwen/Qwen3-0.6B@main --port 0     one revision of it, on any free port
  python -m minisgl --model-path ~/models/smollm2 --host 0.0.0.0   a folder, served to other machines
  python -m minisgl --model-path Qwen/Qwen3-32B --tp 4             one model over four GPUs
  python -m minisgl --model-path Qwen/Qwen3-0.6B --shell           a chat in this terminal
  python -m minisgl --model-path Qwen/Qwen3-0.6B --dummy-weight    random weights, to measure speed

does it fit, before it is loaded:
  python -m minisgl plan --model-path Qwen/Qwen3-32B --gpu h100    what it takes, and the smallest change that fits

what to try first:
  wrong or missing model      --model-path: a folder with config.json, or org/name; HF_TOKEN for a gated one
  out of memory at start      --memory-ratio 0.8 if others use the GPU; --tp 2; --max-prefill-length 2048
  out of memory later         --max-prefill-length 2048, then --max-running-requests 64
  too few requests at once    --memory-ratio 0.95, --max-seq-len-override; see kvCache in /server_info
  streams stall               --max-prefill-length 2048: long prompts are computed in smaller steps
  trouble with NCCL           --disable-pynccl
  trouble with kernels        --attn torch, --cuda-graph-max-bs 0
"""

# Each group's first sentence in `--help`: what it decides, and when to touch it.
GROUPS = {
    "Model": "What is served. Most launches need --model-path alone.",
    "Parallelism": "For a model that does not fit into one GPU, or to answer sooner.",
    "Memory": "How large the KV cache becomes: what --memory-ratio allows, at most --num-pages or --num-tokens.\n"
    "The log and /server_info say which of them decided.",
    "Scheduling": "What runs together. Larger values serve more requests, smaller ones answer each sooner.",
    "Kernels": "How it is computed. Chosen by the device; set them to measure, or to go around a fault.",
    "Server": "Where it listens, what it lets in, how it ends.",
    "Print and exit": "None of them loads a model.",
}

# What `__main__` answers by itself; listed here for `--help` and for suggestions.
PRINTING = {
    "--help": "this text",
    "--version": "the version",
    "--print-args": "the resolved launch arguments as one JSON object",
    "--print-schema": "the JSON schema of the launch arguments (the CRD's spec.runtime)",
}


@cache
def spelling(field: str) -> str:
    """`max_running_requests` or `maxRunningRequests` -> `--max-running-requests`."""
    snake = "".join(f"_{char.lower()}" if char.isupper() else char for char in field)
    return "--" + snake.replace("_", "-")


@cache
def _fields() -> dict[str, str]:
    """CamelCase name -> field."""
    return {to_camel(field): field for field in LaunchArgs.model_fields}


def to_argv(spec: Mapping[str, Any]) -> list[str]:
    """Render the set keys of `spec` (camelCase or field names) as `--flag=value`, in the order of definition.

    The order does not depend on the mapping's, so that the same spec always gives the same bytes. A false boolean
    and a None are left out: both mean the default. Unknown keys raise UsageError.
    """
    names = _fields()
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
    """Make resolved LaunchArgs of field names or camelCase keys; raises UsageError with one sentence."""
    try:
        return LaunchArgs.model_validate(dict(values)).resolved()
    except ValidationError as error:
        raise UsageError("; ".join(_sentence(detail) for detail in error.errors())) from None


def _sentence(detail: ErrorDetails) -> str:
    where = detail["loc"]
    if not where:  # a rule over several fields carries its own sentence
        return detail["msg"].removeprefix("Value error, ")
    name = str(where[0])
    if detail["type"] == "extra_forbidden":
        return f"unknown launch argument {name!r}{_suggest(name, LaunchArgs.model_fields)}"
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    if detail["type"] == "string_pattern_mismatch":  # only the attention backend has one
        message = "should be one of auto, torch, native, fa, fa3, fi, or two of them as prefill,decode"
    return f"{spelling(name)}={detail['input']}: {message}"


def _suggest(name: str, names: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1)
    if not close:
        return ""
    return f"; did you mean {close[0] if close[0].startswith('-') else repr(close[0])}?"


class Parser(argparse.ArgumentParser):
    """argparse that raises UsageError, knows no abbreviations and suggests the flag that was meant."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; {SEE}")

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse all of `argv`; what is no flag is an error that names the closest one."""
        # Before argparse, which would take `-host` for `-h` with the value `ost`.
        for word in argv:
            name, _, value = word.partition("=")
            if IS_FLAG.match(word) and name not in self._option_string_actions:
                raise UsageError(f"unknown argument {name}{_suggest(name, self._option_string_actions)}; {SEE}")
            if value and name in self._option_string_actions and self._option_string_actions[name].nargs == 0:
                raise UsageError(f"{word}: {name} is a switch; give it without a value, or leave it out")
        parsed, unknown = self.parse_known_args(argv)
        if unknown:
            is_settled = "model_path" in parsed or "--model-path" not in self._option_string_actions
            hint = "" if is_settled else f"; did you mean --model-path {unknown[0]}?"
            raise UsageError(f"{unknown[0]} belongs to no flag{hint}; {SEE}")
        return parsed


class Told(argparse.Action):
    """A flag that `__main__` has answered before anything is parsed."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **options)

    def __call__(self, *_: Any) -> None:
        pass


class Help(argparse.RawDescriptionHelpFormatter):
    """`-a, --all N` in place of `-a N, --all N`."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        unit = "" if action.nargs == 0 else f" {action.metavar}"
        return ", ".join(action.option_strings) + unit


def build_parser() -> Parser:
    """The parser of all flags, and the text of `--help`."""
    parser = Parser(
        prog="python -m minisgl",
        usage="python -m minisgl --model-path MODEL [option ...]",
        description="Serve a large language model over an OpenAI-compatible HTTP endpoint.",
        epilog=EPILOG,
        formatter_class=Help,
        allow_abbrev=False,
        add_help=False,
        argument_default=argparse.SUPPRESS,
    )
    groups = {name: parser.add_argument_group(name.lower(), text) for name, text in GROUPS.items()}
    for field, flag in flags().items():
        info = LaunchArgs.model_fields[field]
        names = [spelling(field), *flag.aliases]
        if info.annotation is bool:
            groups[flag.group].add_argument(*names, dest=field, action="store_true", help=flag.help)
            continue
        default = "" if info.is_required() or info.default is None else f" [{info.default}]"
        text = f"{flag.help}{default}".replace("%", "%%")
        groups[flag.group].add_argument(*names, dest=field, metavar=flag.unit or _choices(info.annotation), help=text)
    for name, text in PRINTING.items():
        names = ["-h", name] if name == "--help" else [name]
        groups["Print and exit"].add_argument(*names, action=Told, help=text)
    return parser


def _choices(annotation: Any) -> str:
    return "{" + ",".join(get_args(annotation)) + "}"
