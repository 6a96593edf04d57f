"""What tells one checkpoint from another, without reading its weights."""

import json
import os
from pathlib import Path

import pytest

from minisgl.revision import find_revision


def save(folder: Path, shape: list[int], *, seed: int = 0) -> Path:
    """A checkpoint of one tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    size = 4 * shape[0]
    header = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes([seed]) * size
    (folder / "model.safetensors").write_bytes(content)
    return folder


def test_a_snapshot_of_the_hub_is_its_commit(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert find_revision(save(tmp_path / "snapshots" / commit, [4])) == commit
    assert find_revision(save(tmp_path / commit, [4])).startswith("sha256:")


def test_the_same_files_elsewhere_are_the_same_revision(tmp_path: Path) -> None:
    one, two = save(tmp_path / "one", [4]), save(tmp_path / "two", [4])
    os.utime(two / "model.safetensors", (1, 1))
    assert find_revision(one) == find_revision(two)


@pytest.mark.parametrize("change", ["shape", "config", "a file more"])
def test_another_checkpoint_is_another_revision(tmp_path: Path, change: str) -> None:
    one, two = save(tmp_path / "one", [4]), save(tmp_path / "two", [8] if change == "shape" else [4])
    if change == "config":
        (two / "config.json").write_text("{}")
    if change == "a file more":
        (two / "more.safetensors").write_bytes(bytes(8))
    assert find_revision(one) != find_revision(two)


def test_weights_are_not_read_and_a_folder_without_any_has_a_revision_too(tmp_path: Path) -> None:
    assert find_revision(save(tmp_path / "one", [4])) == find_revision(save(tmp_path / "two", [4], seed=1))
    assert find_revision(tmp_path / "nowhere").startswith("sha256:")
