"""containerd's image store inside the sandbox: what it has, loading archives, forgetting the last run's containers.
The store outlives the cluster, so that a warm start loads nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Collection
from pathlib import Path
from typing import Any

from cluster.address import CONTAINERD_SOCKET
from cluster.paths import CONFIG, LOGS, STORE
from cluster.process import recorded, wait_for
from cluster.sandbox import init_pid, run_inside, spawn_inside
from cluster.say import ClusterError, phase, say

KEPT_TAGS = 4  # of each image; older ones go at the next cold start
LARGE, KEPT_LARGE_TAGS = "docker.io/local/minisgl-runtime-cpu", 1  # 2.6 GB each, content and snapshot
IMPORT_SECONDS = 300


def ctr(*arguments: str | Path, timeout: float = 60) -> str:
    """containerd's own client, in the namespace Kubernetes uses."""
    # Its default connect timeout of 10 s would be the start time of a cluster that asks too early.
    client = ["ctr", "--connect-timeout", "2s", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io"]
    return run_inside([*client, *arguments], log="ctr", timeout=timeout)


def start_containerd(config: str) -> None:
    """Start it with the configuration file `config` and wait for its socket."""
    socket = Path(f"/proc/{init_pid()}/root{CONTAINERD_SOCKET}")
    socket.unlink(missing_ok=True)  # one that was killed leaves it behind, and it would look as if it served
    spawn_inside("containerd", ["containerd", "--config", CONFIG / config])
    if not wait_for(lambda: socket.exists() or recorded("containerd") is None, 20):
        raise ClusterError("containerd opens no socket", "python -m cluster down, then up", LOGS / "containerd.log")
    if recorded("containerd") is None:
        raise ClusterError("containerd ended at once", "python -m cluster clean-cache", LOGS / "containerd.log")


def stop_containerd() -> None:
    """End it in order, so that its data base is closed."""
    pid = recorded("containerd")
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        if not wait_for(lambda: recorded("containerd") is None, 10):
            raise ClusterError("containerd does not end", "python -m cluster down", LOGS / "containerd.log")


def sweep_store(wanted: Collection[str]) -> None:
    """Forget the containers of the last run, and images of ours that newer ones have replaced."""
    if not (STORE / "io.containerd.metadata.v1.bolt" / "meta.db").exists():
        return
    try:
        start_containerd("sweep.toml")
        if containers := ctr("containers", "ls", "-q").split():
            ctr("containers", "rm", *containers)
        if names := surplus(ctr("images", "ls"), wanted):
            ctr("images", "rm", *names)
        stop_containerd()
    except ClusterError as error:
        say(f"the image store is damaged ({error.what.splitlines()[0]}); starting with an empty one")
        if pid := recorded("containerd"):
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: recorded("containerd") is None, 10)
        shutil.rmtree(STORE)


def surplus(table: str, wanted: Collection[str]) -> list[str]:
    """From the table `ctr images ls` prints: the unwanted tags of each image of ours that has more than a few.

    Kubernetes' interface gives each image a second name, by digest; unless both go, nothing is freed.
    """
    digests = {fields[0]: fields[2] for fields in map(str.split, table.splitlines()[1:]) if len(fields) > 2}
    ours: dict[str, list[str]] = {}
    for name in digests:
        if name.startswith("docker.io/local/"):
            ours.setdefault(name.rpartition(":")[0], []).append(name)
    kept = {LARGE: KEPT_LARGE_TAGS}
    full = {image for image, tags in ours.items() if len(tags) > kept.get(image, KEPT_TAGS)}
    old = {name for image in full for name in ours[image] if name not in wanted}
    freed = {digests[name] for name in old} - {digests[name] for name in digests if name in wanted}
    return [name for name, value in digests.items() if name in old or value in freed]


def load_images(archives: dict[str, Path]) -> None:
    """Load what the store does not have yet."""
    present = set(ctr("images", "ls", "-q").split())
    for name, archive in archives.items():
        if name not in present:
            with phase(f"load {name.removeprefix('docker.io/local/')}"):
                ctr("images", "import", archive, timeout=IMPORT_SECONDS)


def base_spec() -> dict[str, Any]:
    """containerd's own default specification of a container."""
    spec: dict[str, Any] = json.loads(ctr("oci", "spec"))
    return spec
