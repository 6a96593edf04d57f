"""The benchmark of the door runs: every token reaches its client, and each process's time is told."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.words import save_words

pytestmark = pytest.mark.cpu

DOOR = Path(__file__).resolve().parents[3] / "runtime/benchmarks/door.py"
SMALL = ("--streams=4", "--rounds=2", "--max-tokens=40", "--rates=100", "--print-only")


def test_it_tells_what_was_streamed(tmp_path: Path) -> None:
    command = [sys.executable, str(DOOR), f"--model={save_words(tmp_path)}", *SMALL]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    found = re.search(r"400 offered +(\d+) tokens/s +([\d.]+) events/token", ran.stdout)
    assert found, ran.stdout
    assert 40 < int(found[1]) <= 400 * 40 / 39  # a first token may come at once: 40 take 39 ticks of the clock
    assert 0.5 < float(found[2]) <= 1
    for process in ("front end", "scheduler", "detokenizer", "client"):
        assert f"{process} " in ran.stdout
