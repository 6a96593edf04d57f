"""`python -m minisgl plan` and `inspect`: answers about a model from its config.json alone. No torch, no device needed.

Exit codes of `plan`: 0 fits (or nothing is judged), 3 does not fit, 2 wrong arguments, 1 the model cannot be read.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from minisgl.args import LaunchArgs
from minisgl.argv import Parser, build_parser, validate
from minisgl.errors import EXIT_START_FAILED, EXIT_USAGE, StartError, UsageError
from minisgl.plan import page
from minisgl.plan.device import GPUS, available_memory, gpu_bytes, memory_for, read_quantity, visible_gpus
from minisgl.plan.inspection import Inspection, Report
from minisgl.plan.model import ModelConfig
from minisgl.plan.outlook import explain, predict, size, smallest_change
from minisgl.source import find_model, revision_of
from minisgl.termination import TERMINATION_LOG, Reason, Termination, leave

EXIT_DOES_NOT_FIT = 3
CONFIG = ("config.json", "generation_config.json")
OF_THE_PLAN = ("gpu", "memory", "json", "check")

PLAN_EPILOG = """\
examples:
  python -m minisgl plan --model-path Qwen/Qwen3-32B --gpu h100              does it fit, and what would make it fit
  python -m minisgl plan --model-path Qwen/Qwen3-32B --gpu h100 --tp 2       shared by two GPUs
  python -m minisgl plan --model-path ~/models/smollm2 --device cpu --memory 2Gi
  python -m minisgl plan --model-path Qwen/Qwen3-0.6B --gpu l4 --json        for programs; bytes, camelCase

Only config.json is read; a hub id fetches that one file. The figures are those that the server sizes its KV cache with:
it prints them beside what it measures in /server_info (engine.memory). All launch arguments may be given; those that
take memory are --dtype, --tp, --memory-ratio, --max-prefill-length, --max-running-requests, --num-tokens, --num-pages,
--page-size, --max-seq-len-override, --cuda-graph-max-bs. Exit codes: 0 it fits, 3 it does not, 2 wrong arguments, 1 the
model cannot be read.
"""
INSPECT_HELP = """\
usage: python -m minisgl inspect --model-path MODEL

Print the shape of a model as one JSON object (from its config.json; nothing is loaded), and leave it in
/dev/termination-log if that exists. The operator runs this in a Job, because it cannot look into a volume itself.
"""


class Asked(NamedTuple):
    """A command line of `plan`, understood. `memory` None: not known."""

    args: LaunchArgs
    device: str
    memory: int | None
    called: str


def plan(words: Sequence[str]) -> int:
    """Print the page, or JSON; `--check` also leaves a termination message when the model does not fit."""
    parser = plan_parser()
    if "-h" in words or "--help" in words:
        sys.stdout.write(parser.format_help())
        return 0
    try:
        given = vars(parser.read(words))
        own = {name: given.pop(name) for name in OF_THE_PLAN if name in given}
        asked = understand(given, own)
        model = ModelConfig.read(find_model(asked.args.model_path, CONFIG))
        outlook = predict(asked.args, model, asked.device, asked.memory)
    except (UsageError, StartError) as error:
        return _end(error)
    change = None
    if asked.memory is not None and not outlook.fits:
        change = smallest_change(asked.args, model, asked.device, asked.memory)
    show = page.as_json(outlook, change) if "json" in own else page.as_page(outlook, change, asked.called)
    sys.stdout.write(show)
    if outlook.fits is not False:
        return 0
    if "check" in own:
        text = f"{explain(outlook)}; {page.mend(outlook, change)}"
        leave(Termination(reason=Reason.DOES_NOT_FIT, message=text))
    return EXIT_DOES_NOT_FIT


def inspect(words: Sequence[str]) -> int:
    """Print what a plan needs of the model, and leave it for the operator."""
    if "-h" in words or "--help" in words:
        sys.stdout.write(INSPECT_HELP)
        return 0
    try:
        given = vars(build_parser().read(words))
        folder = find_model(validate(_with_model(given)).model_path, CONFIG)
        report = Report(model=Inspection.of(ModelConfig.read(folder)), revision=revision_of(folder))
    except (UsageError, StartError) as error:
        return _end(error)
    text = report.model_dump_json(by_alias=True, exclude_defaults=True)
    sys.stdout.write(text + "\n")
    if TERMINATION_LOG.exists():
        TERMINATION_LOG.write_text(text)
    return 0


def understand(given: dict[str, Any], own: dict[str, Any]) -> Asked:
    """Launch arguments, and the memory that is asked about: of `--gpu`, of `--memory`, else of this machine."""
    args = validate(_with_model(given))
    name = own.get("gpu")
    if name is not None and args.device == "cpu":
        raise UsageError(f"--gpu {name} with --device cpu: a plan is for one of them; leave one out")
    memory = None if "memory" not in own else read_quantity(own["memory"])
    if name is not None:
        known = gpu_bytes(name)
        if known is None and memory is None:
            raise UsageError(f"--gpu {name} is not known; add --memory SIZE, or give one of {_names()}")
        memory = known if memory is None else memory
        return Asked(args, "cuda", memory, f"{name}, {size(memory or 0)}")
    here = [] if args.device == "cpu" else visible_gpus()
    device = args.device if args.device != "auto" else "cuda" if here else "cpu"
    if memory is not None:
        return Asked(args, device, memory, f"{device}, {size(memory)}")
    if device == "cpu":
        ranks = args.tensor_parallel_size
        free = available_memory()
        return Asked(args, device, memory_for("cpu", free // ranks, ranks), f"this machine's CPU, {size(free)} free")
    return Asked(args, device, min(here, default=None), f"{len(here)} GPUs of this machine")


def plan_parser() -> Parser:
    """All launch arguments, and what a plan is about."""
    parser = build_parser()
    parser.prog = "python -m minisgl plan"
    parser.usage = "python -m minisgl plan --model-path MODEL [--gpu NAME | --memory SIZE] [launch argument ...]"
    parser.description = (
        "Say before anything is loaded what a model takes of its device's memory, how many tokens its KV cache will "
        "hold, whether it fits, and the smallest change that makes it fit."
    )
    parser.epilog = PLAN_EPILOG
    group = parser.add_argument_group("plan", "What the model is planned for. Neither: the device of this machine.")
    group.add_argument("--gpu", metavar="NAME", help=f"A GPU by name: {_names()}.")
    group.add_argument("--memory", metavar="SIZE", help="Memory of one GPU, or of a server on a CPU, such as 80Gi.")
    group.add_argument("--json", action="store_const", const=True, help="One JSON object in place of the page.")
    group.add_argument(
        "--check", action="store_const", const=True, help="Leave the verdict in /dev/termination-log (for containers)."
    )
    return parser


def _with_model(given: dict[str, Any]) -> dict[str, Any]:
    if "model_path" not in given:
        raise UsageError("--model-path is missing; give a local folder or a Hugging Face id such as Qwen/Qwen3-0.6B")
    return given


def _names() -> str:
    return ", ".join(GPUS)


def _end(error: UsageError | StartError) -> int:
    sys.stderr.write(f"minisgl: {error}\n")
    leave(Termination(reason=error.reason, message=str(error)))
    return EXIT_USAGE if error.reason is Reason.INVALID_ARGUMENTS else EXIT_START_FAILED
