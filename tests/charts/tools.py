"""Where the tests find the programs that users hold: helm, kubectl. A missing one is a failure, never a skip."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def program(name: str) -> str:
    """Path of `name`: the variable of that name (HELM, KUBECTL), else the cluster harness' own build, else PATH."""
    if given := os.environ.get(name.upper()):
        return given
    for folder in (os.environ.get("BIN"), _harness_folder()):
        if folder and (Path(folder) / name).exists():
            return str(Path(folder) / name)
    if found := shutil.which(name):
        return found
    raise FileNotFoundError(f"no {name}: run `make cluster-build`, or set {name.upper()} to its path")


def _harness_folder() -> str | None:
    """The folder of the programs that `make cluster-build` built, or None before it ran."""
    command = [sys.executable, "-m", "cluster", "env"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    return json.loads(answer.stdout).get("BIN") if answer.returncode == 0 else None
