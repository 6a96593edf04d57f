"""Up, down, and all in between: decides whether the running cluster is the one that is wanted, brings it up in order,
and ends it. The story of a start is `_start`, from top to bottom."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster import cgroup, go, images, node, objects, pki, sandbox, store
from cluster.buildah import build_bases
from cluster.config import Node, hostfs, kubeconfig, outside_server, render_config, sandbox_script
from cluster.digest import digest
from cluster.leftovers import mounts_below
from cluster.packages import cni_folder, install_packages
from cluster.paths import AUDIT, CACHE, CONFIG, KUBECONFIG, LOCK, LOGS, MODELS, READY, ROOT, STATE
from cluster.process import end
from cluster.say import ClusterError, phase, say

API_SECONDS = 90  # ten times what busy cores were seen to need
LOCK_SECONDS = 1800  # as long as another clone may build


@contextmanager
def locked() -> Iterator[None]:
    """One command at a time changes cache or cluster; another waits."""
    CACHE.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_SECONDS
    with LOCK.open("a+") as lock:
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    say("another `python -m cluster` is at work; waiting for it")
                told = True
                if time.monotonic() > deadline:
                    raise ClusterError(f"it still works after {LOCK_SECONDS} s", f"see who holds {LOCK}") from None
                time.sleep(0.2)
        yield  # closing the file gives the lock back, however this process ends


def build() -> None:
    """Everything that is the same for every state of the code: packages, programs, base images."""
    install_packages()
    go.build_programs()
    build_bases()


def up() -> None:
    """A running cluster with the images of this clone; starts one only when there is none that will do."""
    if os.geteuid() != 0:
        raise ClusterError("namespaces, mounts and cgroups need root", "run as root")
    build()
    archives = images.build_images(images.recipes())
    wanted = _settings(archives)
    if reason := _why_not(wanted):
        if STATE.exists():
            with phase(f"end the old cluster ({reason})"):
                _end()
        _start(wanted, archives)
    else:
        store.load_images(archives)
    with phase("objects of the cluster"):
        objects.apply_objects(_by_short_name(archives))
    with phase("node, name service and Prometheus ready"):
        objects.wait_until_served()
    _remember(wanted, archives)
    say(f"up: KUBECONFIG={KUBECONFIG}")


def image() -> list[str]:
    """Build the images, the whole runtime's too; load them where a cluster runs."""
    build()
    archives = images.build_images([*images.recipes(), images.whole_runtime()])
    if running():
        store.load_images(archives)
        _remember(json.loads(READY.read_text())["settings"], archives)
    return sorted(archives)


def down() -> None:
    """End the cluster and all traces of it but logs and caches; fine when there is none."""
    with phase("down"):
        _end()


def clean_cache() -> None:
    """Empty the cache. The model and the tools of other rooms go too: they are made again when next needed."""
    if STATE.exists():
        raise ClusterError("a cluster is up and stands on the cache", "python -m cluster down")
    with phase("clean-cache"):
        for path in CACHE.iterdir():
            if path != LOCK:
                remove(path)


def running() -> bool:
    """Whether a whole cluster is there."""
    return READY.exists() and not node.lost_programs()


def remembered_images() -> dict[str, str]:
    """Short name → full name of what the running cluster was last given; empty when none runs."""
    return dict(json.loads(READY.read_text())["images"]) if running() else {}


def remove(path: Path) -> None:
    """Delete a file or folder of ours; never through a mount."""
    if mounts := mounts_below(path):
        raise ClusterError(f"{mounts[0]} is a mount", f"umount {mounts[0]}")
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _settings(archives: dict[str, Path]) -> dict[str, Any]:
    """What may not differ between the running cluster and the wanted one; images and objects may."""
    described = _node(archives)
    texts = {**render_config(described), "sandbox.sh": sandbox_script(_kept(described), go.PAUSE.path())}
    parts = [part for item in sorted(texts.items()) for part in item]
    # The code that passes flags is part of it: a changed flag means another cluster.
    return {
        "key": digest(go.KUBE.key(), *parts, Path(node.__file__), Path(pki.__file__), Path(sandbox.__file__)),
        "shared": [str(path) for path in described.shared],
    }


def _node(archives: dict[str, Path]) -> Node:
    folder = cni_folder()
    assert folder is not None, "install_packages has made sure of it"
    return Node(_by_short_name(archives)["pause"], folder, images.shared_folders())


def _kept(described: Node) -> tuple[Path, ...]:
    return (CACHE, ROOT, *described.shared)


def _why_not(wanted: dict[str, Any]) -> str | None:
    """Why the running cluster will not do, or None when it will."""
    if not READY.exists():
        return "it was never finished" if STATE.exists() else "there is none"
    if lost := node.lost_programs():
        return f"{', '.join(lost)} ended"
    if json.loads(READY.read_text())["settings"] != wanted:
        return "it has another configuration"
    return None if node.is_api_ready() else "its API server does not answer"


def _start(wanted: dict[str, Any], archives: dict[str, Path]) -> None:
    """From nothing to a serving API and a registering node."""
    described = _node(archives)
    _end()
    with phase("configuration and certificates"):
        for path in LOGS.glob("*"):
            path.unlink()
        for folder in (LOGS, MODELS, STATE, CONFIG):
            folder.mkdir(parents=True, exist_ok=True)
        STATE.chmod(0o700)
        AUDIT.touch()
        for name, text in render_config(described).items():
            (CONFIG / name).parent.mkdir(exist_ok=True)
            (CONFIG / name).write_text(text)
        tokens = pki.make_pki()
    with phase("namespaces"):
        cgroup.make_cgroups()
        sandbox.open_sandbox(_kept(described))
        port = node.start_forward()
        KUBECONFIG.touch(mode=0o600)
        KUBECONFIG.write_text(kubeconfig(outside_server(port), pki.authority(), tokens["admin"], "admin"))
    node.start_control_plane()  # both cores: it starts while containerd loads images
    with phase("containerd"):
        store.sweep_store(archives)
        spec = hostfs(store.base_spec(), described.shared)
        (CONFIG / "hostfs.json").write_text(spec)
        store.start_containerd("containerd.toml")
        store.load_images(archives)
    with phase("API server"):
        node.wait_for_api(API_SECONDS)
    node.start_controllers()
    node.start_node()


def _remember(wanted: dict[str, Any], archives: dict[str, Path]) -> None:
    fresh = READY.with_name(".ready")
    fresh.write_text(json.dumps({"settings": wanted, "images": _by_short_name(archives)}, indent=1))
    fresh.replace(READY)


def _by_short_name(archives: dict[str, Path]) -> dict[str, str]:
    return {name.removeprefix("docker.io/local/").rpartition(":")[0]: name for name in archives}


def _end() -> None:
    READY.unlink(missing_ok=True)  # first: from here on it is half a cluster, whatever happens
    end("forward")
    sandbox.close_sandbox()
    cgroup.remove_cgroups()
    if STATE.exists():
        remove(STATE)
