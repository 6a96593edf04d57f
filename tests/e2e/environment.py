"""What the end-to-end tests are told from outside, and how the operator is installed from it.

Any cluster will do: KUBECONFIG and the two images are enough. `make test-e2e` sets them for the cluster of the house.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from charts.tools import CACHE, ROOT, program

SYSTEM, MODELS = "minisgl-system", "models"
RELEASE = "minisgl-operator"
ACCOUNT = f"system:serviceaccount:{SYSTEM}:{RELEASE}"
CHARTS = ROOT / "charts"
NEEDED = ("KUBECONFIG", "MINISGL_OPERATOR_IMAGE", "MINISGL_RUNTIME_IMAGE")


@dataclass(frozen=True)
class Environment:
    """Images and folders; None where this cluster has none."""

    operator_image: str
    runtime_image: str
    runtime_class: str | None
    audit_log: Path | None
    models_folder: Path
    whole_runtime_image: str | None  # built from runtime/Dockerfile: needs nothing of the node
    without_gpu_image: str | None  # takes `--device=cuda` for the CPU

    @property
    def operator_values(self) -> dict[str, str]:
        """What the operator's chart has to be told, as `--set` takes it."""
        repository, _, tag = self.operator_image.rpartition(":")
        values = {"image.repository": repository, "image.tag": tag, "runtime.image": self.runtime_image}
        return values | ({"runtime.runtimeClassName": self.runtime_class} if self.runtime_class else {})


def read(environ: Mapping[str, str] = os.environ) -> Environment:
    """The environment of this process; a missing variable is an error that says what to run."""
    if missing := [name for name in NEEDED if not environ.get(name)]:
        raise LookupError(f"{', '.join(missing)} not set; run `make cluster-up` and then `make test-e2e`")
    audit_log = environ.get("MINISGL_AUDIT_LOG")
    return Environment(
        operator_image=environ["MINISGL_OPERATOR_IMAGE"],
        runtime_image=environ["MINISGL_RUNTIME_IMAGE"],
        runtime_class=environ.get("MINISGL_RUNTIME_CLASS") or None,
        audit_log=Path(audit_log) if audit_log else None,
        models_folder=Path(environ.get("MINISGL_MODELS_DIR") or CACHE / "models"),
        whole_runtime_image=environ.get("MINISGL_WHOLE_RUNTIME_IMAGE") or None,
        without_gpu_image=environ.get("MINISGL_WITHOUT_GPU_IMAGE") or None,
    )


def helm(*arguments: str, timeout: float = 300) -> str:
    """Run helm; raises HelmError with what it said."""
    answer = subprocess.run([program("helm"), *arguments], capture_output=True, text=True, timeout=timeout, check=False)
    if answer.returncode:
        raise HelmError(f"helm {' '.join(arguments)}: {answer.stdout}{answer.stderr}")
    return answer.stdout


class HelmError(Exception):
    """Helm ended with an error; the text is what its user reads."""


def install_operator(environment: Environment, *flags: str) -> str:
    """Install or upgrade the operator from its chart and wait until it runs; returns the chart's notes."""
    settings = [f"--set={name}={value}" for name, value in environment.operator_values.items()]
    where = ("--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "3m")
    return helm("upgrade", "--install", RELEASE, str(CHARTS / "minisgl-operator"), *where, *settings, *flags)
