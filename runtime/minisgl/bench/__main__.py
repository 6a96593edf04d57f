"""`python -m minisgl.bench`: which benchmark, what is printed, which exit code. Heavy imports come after `--help`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from minisgl.bench import options

if TYPE_CHECKING:
    from minisgl.args import LaunchArgs
    from minisgl.bench.report import Report

EXIT_INTERRUPTED = 130  # as shells write it: 128 + SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or "-h" in words or "--help" in words:
        sys.stdout.write(options.help_text())
        return 0 if words else 2
    from minisgl.errors import EXIT_CHILD_DIED, EXIT_START_FAILED, EXIT_USAGE, BackendDied, MiniSGLError, UsageError
    from minisgl.termination import Reason

    command, *rest = words
    try:
        if command not in options.OPTIONS:
            raise UsageError(f"{command} is no benchmark; use one of {', '.join(options.OPTIONS)}")
        args, own = options.read(command, rest)
        target = _writable(own.json) if own.json else None
        report = benchmark(command, args)(own)
        if target is not None:
            target.write_text(json.dumps(report.content(words), indent=2) + "\n")
    except KeyboardInterrupt:
        sys.stderr.write("minisgl.bench: stopped\n")
        return EXIT_INTERRUPTED
    except MiniSGLError as error:
        sys.stderr.write(f"minisgl.bench: {error}\n")
        if isinstance(error, BackendDied):
            return EXIT_CHILD_DIED
        return EXIT_USAGE if getattr(error, "reason", None) is Reason.INVALID_ARGUMENTS else EXIT_START_FAILED
    sys.stdout.write(report.table())
    return report.exit_code


def benchmark(command: str, args: LaunchArgs | None) -> Callable[[argparse.Namespace], Report]:
    """The function behind a command; it takes the benchmark's own options."""
    if args is None:
        from minisgl.bench.serve import measure as measure_server

        return measure_server
    if command == "offline":
        from minisgl.bench.offline import measure
    else:
        from minisgl.bench.latency import measure
    return partial(measure, args)


def _writable(name: str) -> Path:
    """The file of the result, known to be writable before an hour of measuring."""
    from minisgl.errors import UsageError

    path = Path(name).expanduser()
    try:
        path.touch()
    except OSError as error:
        raise UsageError(f"--json {name} cannot be written: {error.strerror}") from error
    return path


if __name__ == "__main__":
    sys.exit(main())
