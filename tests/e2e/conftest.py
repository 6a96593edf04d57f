"""One operator and one model for the whole session: a start costs ten seconds of a core and a gigabyte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from charts.tools import ROOT
from e2e import environment, kube, specs
from e2e.environment import Environment

HERE = Path(__file__).parent
SAMPLE = ROOT / "manifests" / "samples" / "smollm2-cpu.yaml"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder; what judges the whole session comes last."""
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker("cluster")
    last = [item for item in ours if item.get_closest_marker("last")]
    items[:] = [item for item in items if item not in last] + last


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "last: judges what the whole session did")


@pytest.fixture(scope="session")
def env() -> Environment:
    """What the cluster is made of; fails if nobody says."""
    return environment.read()


@pytest.fixture(scope="session", autouse=True)
def operator(env: Environment) -> str:
    """The operator, installed or upgraded by Helm from the chart of this checkout."""
    return environment.install_operator(env)


@pytest.fixture(scope="session")
def smollm2(operator: str) -> str:
    """The sample, served. Whoever breaks it leaves it Ready."""
    name: str = yaml.safe_load(SAMPLE.read_text())["metadata"]["name"]
    kube.delete(name)  # one that is there already runs on the image that it was made with
    kube.kubectl("apply", "--filename", str(SAMPLE))
    kube.wait_until(name, within=180)
    return name


@pytest.fixture
def client(smollm2: str) -> Iterator[openai.OpenAI]:
    """The client that users hold, on the model's Service."""
    with kube.port_forward(f"service/{smollm2}", 80) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="-") as opened:
        yield opened


@pytest.fixture
def model() -> Iterator[Any]:
    """`model(name, spec…)` applies a MiniSGLModel that is gone after the test."""
    applied: list[str] = []

    def make(name: str, source: str = specs.REAL, **spec: Any) -> str:
        applied.append(name)
        kube.apply(specs.wanted(name, source, **spec))
        return name

    yield make
    for name in applied:
        kube.delete(name)


@pytest.fixture(scope="session")
def tiny(env: Environment) -> str:
    """Source of a model that starts fast: 8 heads, no weights (`dummyWeight`)."""
    return specs.write_tiny(env.models_folder)
