"""What a benchmark can be told beside the launch arguments. `--help` needs neither pydantic nor torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minisgl.args import LaunchArgs
    from minisgl.bench.load import Lengths

INTRODUCTION = """\
Measure an engine, or a server. Prompts are random, end tokens are ignored.

  offline   many prompts at once: tokens per second. The workload that engines of this kind are compared on:
            256 prompts, lengths of prompts and answers uniform in 100 to 1024, from one seed.
  latency   a few prompts at a time: time to first token, and between tokens, with percentiles.
  serve     any running server that speaks OpenAI's protocol, over HTTP: rates and latencies as its clients see them.
            A key comes from the environment: OPENAI_API_KEY.

The first two have no HTTP and take every launch argument of `python -m minisgl --help` as well. All print a table, and
write JSON if asked to.
"""
EPILOG = """\
examples:
  python -m minisgl.bench offline --model-path Qwen/Qwen3-0.6B
  python -m minisgl.bench offline --model-path Qwen/Qwen3-32B --tp 4 --rounds 3 --json offline.json
  python -m minisgl.bench offline --model-path Qwen/Qwen3-0.6B --dummy-weight
  python -m minisgl.bench offline --model-path ./smollm2 --num-prompts 8 --max-input 64 --max-output 64
  python -m minisgl.bench latency --model-path Qwen/Qwen3-0.6B --batch-sizes 1,8,64 --input-len 512
  python -m minisgl.bench serve --url http://127.0.0.1:1919 --concurrency 64 --num-prompts 512
  python -m minisgl.bench serve --url http://127.0.0.1:1919 --rate 4 --input-len 100-1024 --output-len 100-1024
"""


def count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def whole(text: str) -> int:
    return 0 if text == "0" else count(text)


def counts(text: str) -> tuple[int, ...]:
    return tuple(count(part) for part in text.split(","))


def amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 0")
    return value


def pace(text: str) -> float:
    if (value := amount(text)) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def lengths(text: str) -> Lengths:
    """`64`, or `32-128`."""
    from minisgl.bench.load import Lengths

    low, _, high = text.partition("-")
    found = Lengths(count(low), count(high or low))
    if found.low > found.high:
        raise argparse.ArgumentTypeError(f"{text!r} begins above its end")
    return found


def one_of(*words: str) -> Callable[[str], str]:
    def choose(text: str) -> str:
        if text not in words:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(words)}")
        return text

    return choose


@dataclass(frozen=True)
class Option:
    """One flag of a benchmark."""

    flag: str
    kind: Callable[[str], Any]
    default: Any
    metavar: str
    text: str

    @property
    def name(self) -> str:
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def start(self) -> Any:
        """The default; a text is read as if it had been given."""
        return self.kind(self.default) if isinstance(self.default, str) else self.default


JSON = Option("--json", str, None, "FILE", "Also write the result there, with machine, versions and command.")
OPTIONS: dict[str, tuple[Option, ...]] = {
    "offline": (
        Option("--num-prompts", count, 256, "N", "Prompts, all there from the beginning."),
        Option(
            "--max-input", count, 1024, "TOKENS", "Longest prompt; the shortest has 100 tokens, or as many as this."
        ),
        Option("--max-output", count, 1024, "TOKENS", "Longest answer; the shortest likewise."),
        Option("--temperature", amount, 0.6, "X", "Of the answers. 0: greedy."),
        Option("--rounds", count, 1, "N", "Repeat, with other prompts of the same lengths; the best round counts."),
        Option("--bandwidth", amount, None, "GB/S", "Of the device's memory, for the roofline. Unset: measured."),
        Option("--tflops", amount, None, "X", "10^12 operations/s of the device, for the roofline. Unset: measured."),
        JSON,
    ),
    "latency": (
        Option(
            "--batch-sizes", counts, (1, 8, 32), "N,N,…", "Prompts that are answered together, one size after another."
        ),
        Option("--input-len", count, 128, "TOKENS", "Length of each prompt."),
        Option("--output-len", count, 64, "TOKENS", "Length of each answer."),
        Option("--rounds", count, 3, "N", "Batches of each size; all count."),
        JSON,
    ),
    "serve": (
        Option("--url", str, "http://127.0.0.1:1919", "URL", "Of the server, with or without /v1."),
        Option("--model", str, None, "NAME", "Unset: the first that the server names."),
        Option(
            "--api",
            one_of("completions", "chat"),
            "completions",
            "{completions,chat}",
            "completions: prompts of token ids, exactly as long as asked; chat: of short words, about so long.",
        ),
        Option("--num-prompts", count, 100, "N", "Requests in all."),
        Option("--concurrency", count, None, "N", "Closed loop: so many are always open. 16 if no rate is given."),
        Option("--rate", pace, None, "X", "Open loop: so many arrive a second, independent of each other (Poisson)."),
        Option("--input-len", lengths, "128", "TOKENS", "Of each prompt, or LOW-HIGH: uniform between them."),
        Option("--output-len", lengths, "64", "TOKENS", "Of each answer, likewise."),
        Option("--seed", whole, 0, "N", "Of lengths, prompts and arrivals: equal ones send equal requests."),
        Option("--vocab-size", count, 10_000, "N", "Token ids of prompts are below it."),
        Option("--temperature", amount, 0.0, "X", "Of the answers. 0: greedy."),
        Option("--eos", one_of("ignore", "obey"), "ignore", "{ignore,obey}", "ignore: send ignore_eos."),
        Option("--warm-up", whole, 2, "N", "Requests before, one by one, that are not counted."),
        Option("--timeout", pace, 600.0, "SECONDS", "For a whole answer; what takes longer has failed."),
        JSON,
    ),
}


def help_text() -> str:
    usage = (
        "usage: python -m minisgl.bench {offline,latency} --model-path MODEL [option ...]\n"
        "       python -m minisgl.bench serve --url URL [option ...]"
    )
    parts = [usage, INTRODUCTION.rstrip()]
    for command in OPTIONS:
        parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, add_help=False)
        _add(parser, command)
        parts.append(parser.format_help().strip())
    return "\n\n".join([*parts, EPILOG])


def read(command: str, argv: Sequence[str]) -> tuple[LaunchArgs | None, argparse.Namespace]:
    """Launch arguments (none for a server that already runs) and the benchmark's own. Raises UsageError."""
    from minisgl.argv import Parser, build_parser, validate
    from minisgl.errors import UsageError

    if command == "serve":
        alone = Parser(allow_abbrev=False, add_help=False)
        _add(alone, command)
        said = vars(alone.read(argv))
        return None, argparse.Namespace(**{each.name: said.get(each.name, each.start) for each in OPTIONS[command]})
    parser = build_parser()
    _add(parser, command)
    given = vars(parser.read(argv))
    if "model_path" not in given:
        raise UsageError("--model-path is missing; give a local folder or a Hugging Face id such as Qwen/Qwen3-0.6B")
    own = {option.name: given.pop(option.name, option.start) for option in OPTIONS[command]}
    if given.get("shell_mode"):
        raise UsageError("--shell-mode is a chat; a benchmark has nobody to talk to, leave it out")
    return validate(given), argparse.Namespace(**own)


def _add(parser: argparse.ArgumentParser, command: str) -> None:
    group = parser.add_argument_group(command)
    for option in OPTIONS[command]:
        shown = ",".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
        default = "" if shown is None else f" [{shown}]"
        group.add_argument(
            option.flag,
            dest=option.name,
            type=option.kind,
            metavar=option.metavar,
            default=argparse.SUPPRESS,
            help=option.text + default,
        )
