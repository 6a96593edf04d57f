"""The cluster's cgroup in every hierarchy of the machine: made before the kubelet starts, removed by `down`. Works
on version 1, version 2 and the mixture of both."""

from __future__ import annotations

import contextlib
from pathlib import Path

from cluster.address import CGROUP
from cluster.process import wait_for
from cluster.say import ClusterError

# Each process outside of a cgroup weighs as much as this whole cluster: beside a build or a test run its pods, the
# operator among them, would hardly run. Not much more than four times: busy pods would starve the API server, which
# stands outside. Of 1024 (version 1) and 100 (version 2).
WEIGHTS = {"cpu.shares": 4 * 1024, "cpu.weight": 4 * 100}


def hierarchies() -> list[Path]:
    """Where cgroup file systems are mounted."""
    mounts = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [Path(fields[4]) for fields in mounts if fields[fields.index("-") + 1] in ("cgroup", "cgroup2")]


def make_cgroups() -> None:
    """Make the cgroup that the kubelet is told to live in; it refuses one that does not exist."""
    for hierarchy in hierarchies():
        ours = hierarchy / CGROUP
        try:
            ours.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                # Version 1 gives a new cpuset no CPU at all, and refuses every process in it.
                if (hierarchy / name).exists() and not (ours / name).read_text().strip():
                    (ours / name).write_text((hierarchy / name).read_text())
            if (hierarchy / "cgroup.controllers").exists():
                _delegate(hierarchy, ours)
            for name, weight in WEIGHTS.items():
                if (ours / name).exists():
                    (ours / name).write_text(str(weight))
        except OSError as error:
            raise ClusterError(
                f"cannot make the cgroup {ours}: {error}", "run as root, on a machine that lets you"
            ) from error


def _delegate(hierarchy: Path, ours: Path) -> None:
    """Version 2: hand every controller down, as far as the machine allows."""
    for folder in (hierarchy, ours):
        for controller in (folder / "cgroup.controllers").read_text().split():
            with contextlib.suppress(OSError):
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def left_cgroups() -> list[Path]:
    """Those that exist."""
    return [path for path in (hierarchy / CGROUP for hierarchy in hierarchies()) if path.exists()]


def remove_cgroups() -> None:
    """Remove them; processes that just died may hold them for a moment."""
    if not wait_for(_try_to_remove, 10, every=0.1):
        raise ClusterError(f"cgroups stay: {', '.join(map(str, left_cgroups()))}", "look into their cgroup.procs")


def _try_to_remove() -> bool:
    for top in left_cgroups():
        folders = sorted((path for path in top.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
        for folder in (*folders, top):
            with contextlib.suppress(OSError):
                folder.rmdir()
    return not left_cgroups()
