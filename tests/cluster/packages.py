"""The Debian packages that the node and the image builds need, installed only where their programs are missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cluster.process import CLEAN_PATH, run
from cluster.say import ClusterError, phase

CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
# program → the package that brings it
NEEDED = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "openssl": "openssl",
    "ip": "iproute2",
    "unshare": "util-linux",
    "mount": "mount",
}


def cni_folder() -> Path | None:
    """Where the CNI plugins are, if anywhere."""
    return next((folder for folder in CNI_FOLDERS if (folder / "bridge").exists()), None)


def missing_packages() -> list[str]:
    """Packages whose program is not on this machine."""
    missing = [package for program, package in NEEDED.items() if not shutil.which(program, path=CLEAN_PATH)]
    return missing if cni_folder() else [*missing, "containernetworking-plugins"]


def install_packages() -> None:
    """Install what is missing; does nothing, and needs no root, when nothing is."""
    packages = missing_packages()
    if not packages:
        return
    if os.geteuid() != 0:
        raise ClusterError(f"these packages are missing: {' '.join(packages)}", "run as root, or install them")
    if not shutil.which("apt-get"):
        raise ClusterError(
            f"no {' '.join(packages)}, and no apt-get", "install them with this machine's package manager"
        )
    with phase(f"apt: {' '.join(packages)}"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        wait = ("-o", "DPkg::Lock::Timeout=120")
        for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            run(["apt-get", "-q", *wait, *command], env=quiet, log="apt", timeout=900,
                next_step="apt-get update && apt-get install the packages named above")  # fmt: skip
