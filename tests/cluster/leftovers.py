"""Looks for what a cluster could have left on the machine: processes, mounts, links, cgroups, files. Only looks."""

from __future__ import annotations

import os
from pathlib import Path

from cluster import cgroup
from cluster.paths import CACHE, STATE
from cluster.process import start_time
from cluster.sandbox import MARK

LINKS = ("node0", "node1", "minisgl0")  # of the sandbox; in the machine's own network they would be strays


def find_leftovers() -> list[str]:
    """One line for each thing that should not be there when no cluster is."""
    found = [f"process {pid}: {_command(pid)}" for pid in marked_processes()]
    found += [f"mount {path}" for path in mounts_below(CACHE)]
    found += [f"link {name}" for name in LINKS if Path("/sys/class/net", name).exists()]
    found += [f"cgroup {path}" for path in cgroup.left_cgroups()]
    if STATE.exists():
        found.append(f"folder {STATE}")
    return found


def marked_processes() -> list[int]:
    """Processes that carry our mark in their environment, or live in a pid namespace with one that does."""
    mark, pids = f"{MARK}={STATE}".encode(), [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    marked = {pid for pid in pids if mark in _read(pid, "environ").split(b"\0") and start_time(pid)}
    inside = {_namespace(pid) for pid in marked} - {_namespace(os.getpid()), None}
    return sorted(marked | {pid for pid in pids if _namespace(pid) in inside})


def mounts_below(folder: Path) -> list[str]:
    """Mount points at or below `folder`, in the machine's own mount namespace."""
    points = (line.split()[4].replace("\\040", " ") for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [point for point in points if Path(point).is_relative_to(folder)]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


def _command(pid: int) -> str:
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()[:120]
