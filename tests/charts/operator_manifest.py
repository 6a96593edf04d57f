"""Writes manifests/operator.yaml: what the operator's chart renders, for an installation without Helm.

`PYTHONPATH=tests python -m charts.operator_manifest`. Identity and rights are in rbac.yaml, the resource in crd.yaml.
"""

from __future__ import annotations

from typing import Any

import yaml

from charts.helm import Object, template
from charts.tools import ROOT

PATH = ROOT / "manifests" / "operator.yaml"
COMMAND = "PYTHONPATH=tests .venv/bin/python -m charts.operator_manifest"
NOTE = f"# Rendered from charts/minisgl-operator by: {COMMAND}; do not edit.\n"
NAMESPACE: Object = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {
        "name": "minisgl-system",
        "labels": {
            "app.kubernetes.io/part-of": "minisgl",
            "pod-security.kubernetes.io/enforce": "restricted",
        },
    },
}


def text() -> str:
    """The whole file."""
    rendered = template("minisgl-operator", None, "--namespace", "minisgl-system")
    objects = [NAMESPACE, rendered.one("Service"), rendered.one("Deployment")]
    return NOTE + "---\n".join(yaml.dump(without_helm(item), sort_keys=False, width=110) for item in objects)


def without_helm(item: Any) -> Any:
    """The object without the labels that only an installation by Helm has."""
    if isinstance(item, dict):
        by_helm = {"helm.sh/chart", "app.kubernetes.io/managed-by"}
        return {key: without_helm(value) for key, value in item.items() if key not in by_helm}
    return [without_helm(each) for each in item] if isinstance(item, list) else item


if __name__ == "__main__":
    PATH.write_text(text())
