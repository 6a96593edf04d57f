"""`python -m minisgl plan` and `inspect` as processes: pages, exit codes, messages, and no torch."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minisgl import termination
from minisgl.plan import command
from minisgl.plan.device import visible_gpus

HEAVY = ("torch", "numpy", "transformers", "fastapi", "huggingface_hub", "minisgl.engine", "minisgl.models")
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "vocab_size": 151936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return str(tmp_path)


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A termination log that exists, as in a container."""
    log = tmp_path / "termination-log"
    log.touch()
    monkeypatch.setattr(command, "TERMINATION_LOG", log)
    monkeypatch.setattr(command, "leave", lambda told: termination.leave(told, log))
    return log


def run(*words: str) -> tuple[int, str, str]:
    """As a process; fails if anything heavy was imported."""
    look = (
        "import sys\nfrom minisgl.__main__ import main\ncode = main(sys.argv[1:])\n"
        f"assert not set({HEAVY}) & sys.modules.keys()\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", look, *words], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def test_a_page_says_what_fits_and_nothing_heavy_is_imported(folder: str) -> None:
    code, page, _ = run("plan", "--model-path", folder, "--gpu", "h200", "--tp", "2")
    assert code == 0
    assert "Qwen3ForCausalLM, bfloat16, 28 layers" in page
    assert "each rank" in page
    assert "fits: " in page
    assert "56.0 KiB" in page, "a token's keys and values on one of two ranks"


def test_what_does_not_fit_exits_3_with_numbers_and_a_change(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.plan(["--model-path", folder, "--memory", "6Gi", "--device", "cuda"]) == 3
    page = capsys.readouterr().out
    assert "does not fit: Qwen3ForCausalLM needs" in page
    assert re.search(r"smallest change that fits: --max-[a-z-]+ \d+; or at least \d\.\d GiB of memory per GPU", page)


def test_json_is_for_programs(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.plan(["--model-path", folder, "--gpu", "l4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["fits"], told["weightBytes"], told["kvBytesPerToken"]) == (True, 2 * 596_049_920, 114_688)


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.plan(["--help"]) == 0
    text = capsys.readouterr().out
    for word in ("--gpu NAME", "a100-80gb", "--memory SIZE", "--tensor-parallel-size", "Exit codes", "examples:"):
        assert word in text
    assert command.inspect(["--help"]) == 0
    assert "/dev/termination-log" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--gpu", "h200"], 2, "--model-path is missing"),
        (["--model-path", "M", "--gpu", "h9000"], 2, "--gpu h9000 is not known; add --memory SIZE, or give one of a10"),
        (["--model-path", "M", "--gpu", "l4", "--device", "cpu"], 2, "leave one out"),
        (["--model-path", "M", "--memory", "much"], 2, "no amount of memory"),
        (["--model-path", "M", "--gpu", "l4", "--tp", "3"], 2, "sizes that work: 1, 2, 4, 8, 16"),
        (["--model-path", "M/nothing", "--gpu", "l4"], 1, "no such folder"),
        (["--model-path", "M", "--gup", "l4"], 2, "did you mean --gpu"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    words: list[str], code: int, sentence: str, folder: str, left: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.plan([word.replace("M", folder) if word[:1] == "M" else word for word in words]) == code
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1


def test_a_check_leaves_why_it_refuses(folder: str, left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.plan(["--model-path", folder, "--device", "cuda", "--memory", "3Gi", "--check"]) == 3
    told = termination.read(left.read_text())
    assert told is not None
    assert (told.reason, "at least" in told.message) == (termination.Reason.DOES_NOT_FIT, True)
    left.write_text("")
    assert command.plan(["--model-path", folder, "--gpu", "h200", "--check"]) == 0
    assert left.read_text() == ""


def test_an_inspection_leaves_the_models_shape(folder: str, left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.inspect(["--model-path", folder]) == 0
    told: dict[str, Any] = json.loads(left.read_text())
    assert told == json.loads(capsys.readouterr().out)
    assert (told["model"]["numLayers"], told["model"]["tiedEmbeddings"], told.get("revision")) == (28, True, None)


def test_an_inspection_as_a_process_needs_nothing_heavy(folder: str) -> None:
    code, said, _ = run("inspect", "--model-path", folder)
    assert (code, json.loads(said)["model"]["hiddenSize"]) == (0, 1024)


@pytest.mark.parametrize(("path", "reason"), [("/no/such", "ModelNotFound"), ("bad", "UnsupportedModel")])
def test_an_inspection_leaves_why_it_failed(path: str, reason: str, tmp_path: Path, left: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text(json.dumps(CONFIG | {"architectures": ["T5Model"]}))
    assert command.inspect(["--model-path", str(tmp_path / path)]) == 1
    told = termination.read(left.read_text())
    assert told is not None
    assert told.reason == reason


FAKE_NVML = """
typedef struct { unsigned long long total, free, used; } Memory;
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **handle) {
    *handle = (void *)(unsigned long)(index + 1); return 0;
}
int nvmlDeviceGetMemoryInfo(void *handle, Memory *memory) {
    memory->total = (unsigned long)handle * (1ull << 33); return 0;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_gpus_are_asked_through_nvidias_library(tmp_path: Path) -> None:
    (tmp_path / "nvml.c").write_text(FAKE_NVML)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "nvml.so", tmp_path / "nvml.c"], check=True)
    assert visible_gpus(str(tmp_path / "nvml.so")) == [2**33, 2**34]


def test_a_machine_without_the_library_has_no_gpus() -> None:
    assert visible_gpus("libno-such-library.so.1") == []
