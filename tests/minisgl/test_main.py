"""The command line as a process: what it prints, with which code, and what it does not import for that."""

import json
import subprocess
import sys

import pytest

from minisgl import __version__
from minisgl.args import LaunchArgs
from minisgl.schema import runtime_schema

# What takes seconds or needs a device; what only prints must do without.
HEAVY = ("torch", "fastapi", "uvicorn", "zmq", "huggingface_hub", "minisgl.server", "minisgl.engine")


def run(*words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error; fails if anything heavy was imported."""
    look = (
        "import sys\nfrom minisgl.__main__ import main\ncode = main(sys.argv[1:])\n"
        f"assert not set({HEAVY}) & sys.modules.keys()\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", look, *words], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def test_the_command_line_can_handle_signals_before_anything_heavy_is_imported() -> None:
    # As PID 1 of a container it would lose a SIGTERM that comes earlier, and live on for its whole grace period.
    look = "import sys, minisgl.__main__; print(sorted({'pydantic', 'argparse', 'torch'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--model=x", "--tp=nonsense", "--help"]])
def test_help_is_printed_without_torch(words: list[str]) -> None:
    code, out, _ = run(*words)
    assert code == 0
    assert "--max-running-requests" in out
    assert "what to try first" in out


def test_the_resolved_arguments_are_one_json_object() -> None:
    code, out, _ = run("--model=org/name", "--tp=4", "--memory-ratio=0.85", "--print-args")
    shown = json.loads(out)
    assert code == 0
    assert LaunchArgs.model_validate(shown) == LaunchArgs(
        model_path="org/name", tensor_parallel_size=4, memory_ratio=0.85
    )
    assert len(shown) == len(LaunchArgs.model_fields)


def test_the_values_that_the_shell_forces_are_shown() -> None:
    code, out, _ = run("--model=org/name", "--shell", "--max-running-requests=8", "--print-args")
    shown = json.loads(out)
    assert code == 0
    assert (shown["maxRunningRequests"], shown["cudaGraphMaxBs"], shown["silentOutput"]) == (1, 1, True)


def test_the_json_schema_is_the_one_of_the_custom_resource() -> None:
    code, out, _ = run("--print-schema")
    assert (code, json.loads(out)) == (0, runtime_schema())


def test_the_version_is_printed() -> None:
    assert run("--version") == (0, f"minisgl {__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model=x", "--tp-sise", "2"], "did you mean --tp-size?"),
        (["--model=x", "--num-pages=9", "--num-tokens=9"], "give one of them"),
        (["--model=x", "--shell", "--dummy-weight"], "leave one of them out"),
        (["--model=x", "--shell", "--dummy-weight", "--print-args"], "leave one of them out"),
    ],
)
def test_a_wrong_command_line_is_one_line_on_stderr_and_exit_2(words: list[str], sentence: str) -> None:
    code, out, said = run(*words)
    assert (code, out) == (2, "")
    assert sentence in said
    assert len(said.splitlines()) == 1
