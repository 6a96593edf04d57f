"""The generator writes what is missing, changes nothing twice, and names what differs."""

import json
from pathlib import Path

import pytest
import yaml

from minisgl import __version__
from minisgl_operator import cluster, generate


@pytest.fixture
def root(tmp_path: Path) -> Path:
    chart = tmp_path / "charts" / "minisgl-model"
    chart.mkdir(parents=True)
    (chart / "Chart.yaml").write_text("name: minisgl-model\nversion: 9.9.9\nappVersion: old\n")
    (chart / "README.md").write_text("# Chart\n<!-- args -->\nold\n<!-- /args -->\nafter\n")
    properties = {"replicas": {"type": "integer"}, "runtime": {}, "pause": {}}
    base = {"type": "object", "additionalProperties": False, "properties": properties}
    (chart / "values.schema.base.json").write_text(json.dumps(base))
    return tmp_path


def test_it_writes_everything_once(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main([], root) == 0
    assert "wrote manifests/crd.yaml" in capsys.readouterr().out
    assert generate.main([], root) == 0
    assert capsys.readouterr().out == ""
    assert generate.main(["--check"], root) == 0


def test_check_names_the_file_that_differs_and_writes_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate.main([], root)
    (root / "manifests" / "crd.yaml").write_text("x")
    assert generate.main(["--check"], root) == 1
    assert capsys.readouterr().err == "manifests/crd.yaml is not what the code says; run: make generate\n"
    assert (root / "manifests" / "crd.yaml").read_text() == "x"


def test_manifest_and_chart_hold_the_same_definition_without_anchors(root: Path) -> None:
    files = generate.files(root)
    assert files["manifests/crd.yaml"] == files["charts/minisgl-operator/files/crd.yaml"]
    assert "&id" not in files["manifests/crd.yaml"]


def test_the_charts_schema_knows_every_launch_argument_and_refuses_others(root: Path) -> None:
    schema = json.loads(generate.files(root)["charts/minisgl-model/values.schema.json"])
    assert schema["properties"]["replicas"] == {"type": "integer"}
    assert schema["properties"]["runtime"]["additionalProperties"] is False
    assert "maxRunningRequests" in schema["properties"]["runtime"]["properties"]
    assert schema["properties"]["pause"]["type"] == "boolean"


def test_tables_and_versions_are_spliced_into_what_people_wrote(root: Path) -> None:
    files = generate.files(root)
    readme = files["charts/minisgl-model/README.md"]
    assert readme.startswith("# Chart\n")
    assert readme.endswith("<!-- /args -->\nafter\n")
    assert "`--max-running-requests`" in readme
    assert "\nold\n" not in readme
    chart = yaml.safe_load(files["charts/minisgl-model/Chart.yaml"])
    assert chart == {"name": "minisgl-model", "version": __version__, "appVersion": __version__}


def test_files_of_other_rooms_are_not_invented(root: Path) -> None:
    assert "runtime/README.md" not in generate.files(root)


def test_the_rights_are_few() -> None:
    for rule in cluster.RULES:
        text = json.dumps(rule)
        assert "*" not in text
        assert "secrets" not in text
        assert not {"update", "deletecollection", "escalate", "bind"} & set(rule["verbs"])
    can_delete = [resource for rule in cluster.RULES if "delete" in rule["verbs"] for resource in rule["resources"]]
    assert can_delete == ["networkpolicies", "podmonitors"]  # what a spec can ask for and take back


def test_the_files_in_the_repository_are_what_the_code_says() -> None:
    assert generate.main(["--check"]) == 0
