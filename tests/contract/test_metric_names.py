"""A metric is declared once; whoever asks for one asks for a declared one."""

import re
from pathlib import Path

from minisgl.metrics import Metrics
from minisgl_operator.metrics import Metrics as OperatorMetrics

ROOT = Path(__file__).resolve().parents[2]
ASKING = [*ROOT.glob("tests/e2e/*.py"), ROOT / "tests/cluster/demo.py", *ROOT.glob("charts/**/*.*")]
ASKING += [*ROOT.glob("manifests/**/*.yaml"), ROOT / "README.md", *ROOT.glob("*/README.md")]
ASKED = re.compile(r"\b(?:sum|avg|max|min|rate|increase|histogram_quantile)\(\s*(minisgl_[a-z_]+)")
SUFFIX = re.compile(r"_(total|bucket|count|sum|created)$")


def test_every_metric_that_is_asked_for_is_declared() -> None:
    registries = (Metrics("model").registry, OperatorMetrics().registry)
    declared = {family.name for registry in registries for family in registry.collect()}
    asked = {(name, path.name) for path in ASKING if path.is_file() for name in ASKED.findall(path.read_text())}
    assert asked, "nobody asks for a metric"
    assert {(name, where) for name, where in asked if not {name, SUFFIX.sub("", name)} & declared} == set()
