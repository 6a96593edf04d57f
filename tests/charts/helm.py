"""`helm template` as a function, and what Kubernetes would say to its output."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from typing import Any

import kubernetes_validate
import yaml

from charts.tools import ROOT, program

CHARTS = ROOT / "charts"
MONITORING = ("--api-versions", "monitoring.coreos.com/v1")
NEWEST = "1.36"
Object = dict[str, Any]


class RenderError(Exception):
    """Helm refused; the text is what its user reads."""


@dataclass(frozen=True)
class Rendered:
    """The objects of one rendering."""

    objects: list[Object] = field(default_factory=list)

    def of(self, kind: str) -> list[Object]:
        """All objects of a kind, test hooks not among them."""
        return [item for item in self.objects if item["kind"] == kind and not is_hook(item)]

    def one(self, kind: str) -> Object:
        """The only object of a kind."""
        (found,) = self.of(kind)
        return found

    def hooks(self) -> list[Object]:
        """What `helm test` runs."""
        return [item for item in self.objects if is_hook(item)]


def is_hook(item: Object) -> bool:
    """Whether Helm runs the object only on `helm test`."""
    return "helm.sh/hook" in item["metadata"].get("annotations", {})


def template(chart: str, values: Object | None = None, *flags: str, name: str | None = None) -> Rendered:
    """Render `charts/CHART` as `helm install NAME --namespace somewhere` would; raises RenderError."""
    command = [program("helm"), "template", name or chart, str(CHARTS / chart), "--namespace", "somewhere", *flags]
    answer = subprocess.run(
        [*command, "--values", "-"], input=json.dumps(values or {}), capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise RenderError(answer.stderr)
    return Rendered([item for item in yaml.safe_load_all(answer.stdout) if item])


def validate(item: Object, version: str = NEWEST) -> None:
    """Hold one object of Kubernetes' own kinds against its schema; unknown fields are errors."""
    kubernetes_validate.validate(item, version, strict=True)
