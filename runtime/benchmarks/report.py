"""Where a benchmark's result goes, and what has to stand beside its figures: machine, versions, command, load."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

MODEL = Path("~/.cache/minisgl/models/smollm2-135m-instruct").expanduser()  # `make model` puts it there


def write(script: Path, result: dict[str, Any], packages: tuple[str, ...] = ("numpy",), suffix: str = "") -> None:
    """Store `result` as results/NAME.json beside the script NAME.py; `suffix` is added to the name."""
    head = {
        "command": " ".join([".venv/bin/python", f"runtime/benchmarks/{script.name}", *sys.argv[1:]]).replace(
            str(Path.home()), "~"
        ),
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "versions": {"python": platform.python_version(), **versions("minisgl", *packages)},
    }
    target = script.parent / "results" / f"{script.stem}{suffix}.json"
    target.write_text(json.dumps({"what": result.pop("what"), **head, **result}, indent=2) + "\n")


def versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def cpu() -> str:
    """The processor's model name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
