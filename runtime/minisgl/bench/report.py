"""A result as people and programs read it: a table, and JSON that says on which machine, with what, and how."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from minisgl import __version__
from minisgl.info import EngineFacts
from minisgl.threads import available_cores

PACKAGES = ("torch", "numpy", "tokenizers", "flashinfer-python", "flash-attn-4", "flash-attn", "triton")


@dataclass(frozen=True)
class Report:
    """`rows` are the table; `more` stands beside them in the JSON."""

    benchmark: str
    model_path: str
    engine: EngineFacts | None  # None: a server that somebody else started
    workload: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    notes: Sequence[str]  # sentences under the table
    more: Mapping[str, Any]
    exit_code: int = 0

    def content(self, words: Sequence[str]) -> dict[str, Any]:
        """What the JSON file holds; `words` are the command line's."""
        return {
            "benchmark": self.benchmark,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join(["python", "-m", "minisgl.bench", *words]),
            "machine": machine(self.engine.device if self.engine else "cpu"),
            "versions": versions(),
            "model": self.model_path,
            **({"engine": self.engine.model_dump(mode="json")} if self.engine else {}),
            "workload": dict(self.workload),
            "rows": [dict(row) for row in self.rows],
            **self.more,
        }

    def table(self) -> str:
        """Aligned columns, named by the rows' keys, and the notes."""
        names = list(self.rows[0])
        titles = [name.replace("_per_s", "/s").replace("_", " ") for name in names]
        cells = [titles, *([_shown(row[name]) for name in names] for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([*lines, *self.notes]) + "\n"


def machine(device: str) -> dict[str, Any]:
    """What the figures depend on. `load` is of the minute before: above `cores`, they are those of a busy machine."""
    facts: dict[str, Any] = {
        "cpu": cpu_name(),
        "cores": available_cores(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "load": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.release()}",
    }
    if device == "cuda":
        import torch

        facts["gpu"] = torch.cuda.get_device_name()
        facts["gpus"] = torch.cuda.device_count()
    return facts


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def versions() -> dict[str, str]:
    found = {"minisgl": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}" if value >= 10 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
