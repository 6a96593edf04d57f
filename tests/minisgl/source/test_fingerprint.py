"""What tells one checkpoint from another, without reading its weights."""

import json
import os
from pathlib import Path

import pytest

from minisgl.source.fingerprint import fingerprint


def save(folder: Path, shape: list[int], *, seed: int = 0) -> Path:
    """A checkpoint of one tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    size = 4 * shape[0]
    header = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes([seed]) * size
    (folder / "model.safetensors").write_bytes(content)
    return folder


def test_the_same_files_elsewhere_have_the_same_fingerprint(tmp_path: Path) -> None:
    one, two = save(tmp_path / "one", [4]), save(tmp_path / "two", [4])
    os.utime(two / "model.safetensors", (1, 1))
    assert fingerprint(one) == fingerprint(two)


@pytest.mark.parametrize("change", ["shape", "config", "a file more"])
def test_another_checkpoint_has_another_fingerprint(tmp_path: Path, change: str) -> None:
    one, two = save(tmp_path / "one", [4]), save(tmp_path / "two", [8] if change == "shape" else [4])
    if change == "config":
        (two / "config.json").write_text("{}")
    if change == "a file more":
        (two / "more.safetensors").write_bytes(bytes(8))
    assert fingerprint(one) != fingerprint(two)


def test_weights_are_not_read_and_a_folder_without_any_has_one_too(tmp_path: Path) -> None:
    assert fingerprint(save(tmp_path / "one", [4])) == fingerprint(save(tmp_path / "two", [4], seed=1))
    assert fingerprint(tmp_path / "nowhere").startswith("sha256:")
