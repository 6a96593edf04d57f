"""The rules of the house that no linter knows."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
PYTHON = [ROOT / name for name in TRACKED if name.endswith(".py") and (ROOT / name).exists()]
SHIPPED = [path for path in PYTHON if path.relative_to(ROOT).parts[0] in ("runtime", "operator")]
WRITTEN = (".py", ".go", ".md", ".sh", ".tpl", ".toml")  # by hand; generated and golden files may be long


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_file_is_longer_than_one_sitting() -> None:
    files = [ROOT / tracked for tracked in TRACKED if tracked.endswith(WRITTEN)]
    lengths = {name(path): len(path.read_text().splitlines()) for path in files if path.exists()}
    assert {path: lines for path, lines in lengths.items() if lines > 400} == {}


@pytest.mark.parametrize("path", SHIPPED, ids=name)
def test_a_module_opens_with_what_it_owns(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{name(path)} has no module docstring"


def test_nothing_importable_is_called_operator() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not (ROOT / "tests" / "operator").exists()


# Each of these has turned a model server into a remote shell somewhere.
FORBIDDEN_MODULES = {"pickle", "dill", "marshal", "shelve", "cloudpickle"}
FORBIDDEN_CALLS = {"eval", "exec", "recv_pyobj", "send_pyobj"}


@pytest.mark.parametrize("path", SHIPPED, ids=name)
def test_no_code_comes_in_as_data(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & FORBIDDEN_MODULES
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in FORBIDDEN_MODULES
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name):
                assert function.id not in FORBIDDEN_CALLS
            if isinstance(function, ast.Attribute):
                owner = function.value.id if isinstance(function.value, ast.Name) else ""
                assert function.attr not in {"recv_pyobj", "send_pyobj"}
                assert (owner, function.attr) not in {("torch", "load"), ("yaml", "load"), ("os", "system")}
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            assert "trust_remote_code" not in keywords
            shell = keywords.get("shell")
            assert shell is None or (isinstance(shell, ast.Constant) and shell.value is False)


def test_every_make_target_that_a_document_names_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in (ROOT / tracked for tracked in TRACKED if tracked.endswith(".md")):
        if document.exists():
            named = set(re.findall(r"`make (?:-s )?([a-z0-9-]+)", document.read_text()))
            assert named <= targets, f"{name(document)} names {sorted(named - targets)}"


def test_every_help_line_of_the_makefile_is_a_phony_target() -> None:
    text = (ROOT / "Makefile").read_text()
    described = set(re.findall(r"^([a-z0-9-]+):.*## ", text, re.MULTILINE))
    joined = text.replace("\\\n", " ")
    phony = set(" ".join(re.findall(r"^\.PHONY:(.*)$", joined, re.MULTILINE)).split())
    assert described <= phony


def test_the_continuous_integration_installs_nothing_of_its_own() -> None:
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if not line.startswith("#")]
    assert commands == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "exec make test"]
