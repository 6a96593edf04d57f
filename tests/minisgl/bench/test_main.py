"""The benchmarks as commands, on a tiny model: what they print, what they write, how they refuse."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minisgl.bench.__main__ import main
from support.checkpoints import save_tiny

pytestmark = pytest.mark.cpu

SMALL = ["--num-prompts=6", "--max-input=20", "--max-output=7", "--device=cpu", "--num-tokens=512"]
SPEED = ["--bandwidth=10", "--tflops=0.1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder)
    return f"--model-path={folder}"


def test_help_teaches_without_importing_anything_heavy() -> None:
    look = (
        "import sys; from minisgl.bench.__main__ import main; main(['offline', '--help']);"
        "print({'torch', 'pydantic', 'numpy'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert answer.stdout.endswith("set()\n")
    for flag in ("--num-prompts", "--max-input", "--max-output", "--rounds", "--json", "--batch-sizes", "examples:"):
        assert flag in answer.stdout


def test_offline_prints_a_table_and_writes_what_it_measured(model: str, tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "result.json"
    words = ["offline", model, *SMALL, *SPEED, "--rounds=2", f"--json={target}", "--page-size=4"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[-3:] == ["output tokens/s", "all tokens/s", "requests/s"]
    assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]
    assert lines[3] == "6 prompts, 120 tokens in, 42 out"
    assert lines[4].startswith("roofline: ")
    result = json.loads(target.read_text())
    assert result["command"].startswith("python -m minisgl.bench offline --model-path")
    assert result["machine"]["cpu"]
    assert result["versions"]["torch"]
    assert result["engine"]["kvCache"]["pageSize"] == 4
    assert len(result["rows"]) == 2
    assert result["best"] in result["rows"]
    assert result["roofline"]["reached"] > 0


def test_offline_runs_with_random_weights(model: str, tmp_path: Path, capsys: Any) -> None:
    config = Path(model.removeprefix("--model-path=")) / "config.json"
    (tmp_path / "config.json").write_text(config.read_text())
    assert main(["offline", f"--model-path={tmp_path}", "--dummy-weight", *SMALL, *SPEED]) == 0
    assert "output tokens/s" in capsys.readouterr().out


def test_latency_gives_percentiles_for_each_batch_size(model: str, tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "result.json"
    own = ["--batch-sizes=1,3", "--input-len=9", "--output-len=5", "--rounds=2", f"--json={target}"]
    assert main(["latency", model, "--device=cpu", "--num-tokens=512", *own]) == 0
    assert "first p50 ms" in capsys.readouterr().out
    rows = json.loads(target.read_text())["rows"]
    assert [row["batch"] for row in rows] == [1, 3]
    for row in rows:
        assert 0 < row["first_p50_ms"] <= row["first_p90_ms"] <= row["first_p99_ms"]
        assert 0 < row["between_p50_ms"] <= row["between_p90_ms"] <= row["between_p99_ms"]
        assert row["tokens_per_s"] > 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ofline"], "ofline is no benchmark; use one of offline, latency, serve"),
        (["offline"], "--model-path is missing"),
        (["offline", "--model-path=x", "--num-promts=3"], "did you mean --num-prompts?"),
        (["offline", "--model-path=x", "--rounds=0"], "'0' is no whole number of at least 1"),
        (["offline", "--model-path=x", "--tp=zero"], "--tensor-parallel-size=zero"),
        (["offline", "--model-path=x", "--shell"], "--shell-mode is a chat"),
        (["offline", "--model-path=x", "--json=/nowhere/x.json"], "--json /nowhere/x.json cannot be written"),
        (["latency", "--model-path=x", "--batch-sizes=9", "--max-running-requests=8"], "is more than --max-running"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(words: list[str], sentence: str, capsys: Any) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_what_does_not_fit_the_model_is_refused_before_measuring(model: str, capsys: Any) -> None:
    assert main(["offline", model, "--device=cpu"]) == 2
    assert "more than the context of 256; lower them" in capsys.readouterr().err
    assert main(["latency", model, "--device=cpu", "--input-len=300"]) == 2
    assert "lower one of them" in capsys.readouterr().err
    assert main(["latency", "--model-path=/no/such/folder"]) == 1
    assert "no such folder" in capsys.readouterr().err
