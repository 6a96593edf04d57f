"""The schema of a CustomResourceDefinition as the API server applies it with strict field validation."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from charts.tools import CACHE, ROOT

# The Go module of the Prometheus operator; the last version whose own module carries the CRD files.
PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"


def validate(item: dict[str, Any], definition: dict[str, Any]) -> None:
    """Raise jsonschema.ValidationError unless the definition's served version takes `item` as it is."""
    version = item["apiVersion"].split("/")[1]
    (schema,) = (each["schema"] for each in definition["spec"]["versions"] if each["name"] == version)
    jsonschema.Draft202012Validator(strict(schema["openAPIV3Schema"])).validate(item)


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A structural schema as plain JSON schema: unknown fields are errors, int-or-string is both, formats are left."""
    result = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-") and key != "format"}
    if schema.get("x-kubernetes-int-or-string"):
        bounds = {key: schema[key] for key in ("pattern", "minimum", "maximum") if key in schema}
        return {"type": ["integer", "string"]} | bounds
    if schema.get("nullable"):
        result["type"] = [schema["type"], "null"]
    if "properties" in schema:
        result["properties"] = {name: strict(each) for name, each in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        result["items"] = strict(schema["items"])
    if "pattern" in schema:
        result["pattern"] = re.sub(r"\\z", r"\\Z", schema["pattern"])  # RE2 and Python differ in this anchor
    return result


def minisgl() -> dict[str, Any]:
    """Our own definition, as it is generated."""
    definition: dict[str, Any] = yaml.safe_load((ROOT / "manifests" / "crd.yaml").read_text())
    return definition


@cache
def prometheus(plural: str) -> dict[str, Any]:
    """A definition of the Prometheus operator, such as `podmonitors`, from its Go module; cached on this machine."""
    cached = CACHE / "crds" / f"{plural}.yaml"
    if not cached.exists():
        with tempfile.TemporaryDirectory() as folder:
            answer = subprocess.run(
                ["go", "mod", "download", "-json", PROMETHEUS_OPERATOR],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
        assert answer.returncode == 0, f"go cannot fetch {PROMETHEUS_OPERATOR}: {answer.stdout}{answer.stderr}"
        files = Path(json.loads(answer.stdout)["Dir"]) / "example" / "prometheus-operator-crd"
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.write_text((files / f"monitoring.coreos.com_{plural}.yaml").read_text())
    definition: dict[str, Any] = yaml.safe_load(cached.read_text())
    return definition
