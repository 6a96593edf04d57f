"""Both charts as packages: clean by Helm's own lint, one version, every value documented, used and checked."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import minisgl
from charts import openapi
from charts.helm import CHARTS
from charts.tools import program

BOTH = pytest.mark.parametrize(
    "chart", [CHARTS / "minisgl-operator", CHARTS / "minisgl-model"], ids=lambda path: path.name
)


def leaves(values: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every value that holds no further ones."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key)


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every object schema with named properties."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for each in schema.values():
            yield from objects(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from objects(each)


@BOTH
def test_helm_lint_finds_nothing(chart: Path) -> None:
    answer = subprocess.run([program("helm"), "lint", "--strict", str(chart)], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "[WARNING]" not in answer.stdout


@BOTH
def test_the_chart_carries_the_version_of_the_package(chart: Path) -> None:
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    assert (about["version"], about["appVersion"]) == (minisgl.__version__, minisgl.__version__)
    assert about["kubeVersion"] == ">=1.30.0-0"  # it knows the definition's selectableFields; CEL is stable since 1.29


@BOTH
def test_every_object_of_the_schema_refuses_unknown_keys(chart: Path) -> None:
    schema = json.loads((chart / "values.schema.json").read_text())
    for each in objects(schema):
        assert each.get("additionalProperties") is False, sorted(each["properties"])
    assert "global" in schema["properties"]


@BOTH
def test_the_schema_knows_every_value_and_no_other(chart: Path) -> None:
    values = yaml.safe_load((chart / "values.yaml").read_text())
    schema = json.loads((chart / "values.schema.json").read_text())
    assert schema["properties"].keys() - {"global"} == values.keys()
    for path in leaves(values):
        here = schema
        for key in path:
            here = here["properties"][key]


@BOTH
def test_every_value_is_used_in_a_template(chart: Path) -> None:
    templates = "".join(path.read_text() for path in sorted((chart / "templates").rglob("*")) if path.is_file())
    values = yaml.safe_load((chart / "values.yaml").read_text())
    used = set(re.findall(r"\.Values((?:\.\w+)+)", templates))
    for path in leaves(values):
        name = "." + ".".join(path)
        parents = {"." + ".".join(path[:depth]) for depth in range(1, len(path))}
        within = parents & used and f".{path[-1]}" in templates  # `with .Values.device`, then `.type`
        assert name in used or within, f"{name[1:]} is in values.yaml, but no template reads it"


@BOTH
def test_every_paragraph_of_values_is_explained(chart: Path) -> None:
    for paragraph in (chart / "values.yaml").read_text().split("\n\n"):
        assert "# " in paragraph, f"no comment explains:\n{paragraph}"


def test_the_charts_take_the_same_sources_as_the_api() -> None:
    schema = json.loads((CHARTS / "minisgl-model" / "values.schema.json").read_text())
    (version,) = openapi.minisgl()["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    source = spec["model"]["properties"]["source"]
    assert schema["properties"]["model"]["properties"]["source"]["pattern"] == source["pattern"]
    assert schema["properties"]["runtime"]["properties"].keys() == spec["runtime"]["properties"].keys()
