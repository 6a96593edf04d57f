"""Where the tests find the programs that users hold: helm, kubectl. A missing one is a failure, never a skip."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minisgl"
BUILT = CACHE / "bin"  # what `make cluster-build` made


def program(name: str) -> str:
    """Path of `name`: the variable of that name (HELM, KUBECTL), else the house's own build, else PATH."""
    if given := os.environ.get(name.upper()):
        return given
    if (BUILT / name).exists():
        return str(BUILT / name)
    if found := shutil.which(name):
        return found
    raise FileNotFoundError(f"no {name}: run `make cluster-build`, or set {name.upper()} to its path")
