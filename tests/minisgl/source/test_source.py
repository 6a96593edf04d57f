"""A model's place: a folder, or the hub; no network is touched here."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from minisgl.errors import StartError
from minisgl.source import SETTINGS, find_model
from minisgl.termination import Reason


def test_a_folder_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert find_model(str(tmp_path / "model")) == find_model("~/model") == tmp_path / "model"


@pytest.mark.parametrize("path", ["/nowhere/model", "no spaces/allowed here", "single", "a/b/c"])
def test_what_is_neither_folder_nor_repository_is_named(path: str) -> None:
    with pytest.raises(StartError, match="not a repository id") as caught:
        find_model(path)
    assert caught.value.reason is Reason.MODEL_NOT_FOUND


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "weights").touch()
    with pytest.raises(StartError, match="is a file"):
        find_model(str(tmp_path / "weights"))


def test_a_place_that_cannot_be_looked_at_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for path, why in (("~no-such-user/model", "home directory"), ("x" * 5000, "name too long")):
        with pytest.raises(StartError, match=f"cannot be looked at: .*{why}.*; name a folder") as caught:
            find_model(path)
        assert caught.value.reason is Reason.MODEL_NOT_FOUND

    def forbidden(place: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr(Path, "is_dir", forbidden)
    with pytest.raises(StartError, match="--model-path /secret/model cannot be looked at: Permission denied"):
        find_model("/secret/model")


@pytest.mark.parametrize(
    ("path", "name", "revision"),
    [("org/name", "org/name", None), ("org/na.me-1@refs/pr/3", "org/na.me-1", "refs/pr/3")],
)
def test_a_repository_is_fetched_without_code_and_pickles(
    path: str, name: str, revision: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def snapshot_download(repo: str, **options: Any) -> str:
        asked.update(options, repo=repo)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert find_model(path) == tmp_path
    assert (asked["repo"], asked["revision"]) == (name, revision)
    assert not [pattern for pattern in asked["allow_patterns"] if pattern.endswith((".py", ".bin", ".pt"))]
    find_model(path, SETTINGS)
    assert "*.safetensors" not in asked["allow_patterns"]


def test_a_hub_that_does_not_answer_is_no_missing_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(*_: Any, **__: Any) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(StartError, match=r"org/name: the Hugging Face hub.*no route to host.*local folder") as caught:
        find_model("org/name")
    assert caught.value.reason is Reason.START_FAILED  # so that Kubernetes tries again


def test_a_name_that_the_hub_cannot_have_is_a_missing_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(*_: Any, **__: Any) -> str:
        raise huggingface_hub.errors.HFValidationError("Repo id must not end with '.git'")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(StartError, match="HF_TOKEN") as caught:
        find_model("org/name.git")
    assert caught.value.reason is Reason.MODEL_NOT_FOUND
