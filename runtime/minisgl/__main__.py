"""The command line: what is printed, which exit code. Everything heavy is imported after the arguments are read.

Even what reads them (pydantic, half a second) is imported late: before that, SIGTERM needs its handler. A process that
is PID 1 of a container loses a signal that it does not handle, and a pod deleted in that moment lives on for its
whole grace period. What comes before Python's first line is kept by our images' entry point, which blocks SIGTERM.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    from minisgl import __version__
    from minisgl.argv import build_parser, parse_args
    from minisgl.errors import EXIT_USAGE, UsageError
    from minisgl.termination import Reason, Termination, leave

    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in (["plan"], ["inspect"]):
        from minisgl.plan import command

        return (command.plan if words[0] == "plan" else command.inspect)(words[1:])
    if "-h" in words or "--help" in words:
        return say(build_parser().format_help())
    if "--version" in words:
        return say(f"minisgl {__version__}\n")
    if "--print-schema" in words:
        import json

        from minisgl.schema import runtime_schema

        return say(json.dumps(runtime_schema(), indent=2) + "\n")
    only_print = "--print-args" in words
    try:
        args = parse_args(words)
    except UsageError as error:
        sys.stderr.write(f"minisgl: {error}\n")
        leave(Termination(reason=Reason.INVALID_ARGUMENTS, message=str(error)))
        return EXIT_USAGE
    if only_print:
        return say(args.model_dump_json(by_alias=True, indent=2) + "\n")
    from minisgl.server.launch import serve

    return serve(args)


def say(text: str) -> int:
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))  # until the supervisor takes over
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # one that was kept is heard here
    sys.exit(main())
