"""The models that the tests ask for: the small real one, and one with 8 heads and random weights that starts fast."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from e2e.environment import MODELS

REAL = "pvc://models/smollm2-135m-instruct"
TINY = "tiny-8-heads"
BROKEN = ("truncated", "unsupported", "hanging")
TINY_SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 8,
}


def wanted(name: str, source: str = REAL, **spec: Any) -> dict[str, Any]:
    """A small MiniSGLModel on the CPU."""
    return {
        "apiVersion": "minisgl.io/v1alpha1",
        "kind": "MiniSGLModel",
        "metadata": {"name": name, "namespace": MODELS},
        "spec": {"model": {"source": source}, "device": {"type": "cpu"}} | spec,
    }


def write_broken(models_folder: Path) -> None:
    """Beside the tiny model: weights that end too early, a class that no engine knows, a disk that never answers."""
    write_tiny(models_folder)
    remove_broken(models_folder)
    for name in BROKEN:
        shutil.copytree(models_folder / TINY, models_folder / name)
        (models_folder / name).chmod(0o755)
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    weights = models_folder / "truncated" / "model.safetensors"
    weights.write_bytes(len(header).to_bytes(8, "little") + header + bytes(3))
    config = models_folder / "unsupported" / "config.json"
    names = {"architectures": ["NobodysModel"], "model_type": "nobody"}
    config.write_text(json.dumps(json.loads(config.read_text()) | names))
    os.mkfifo(models_folder / "hanging" / "model.safetensors", 0o644)  # who opens it waits for a writer


def remove_broken(models_folder: Path) -> None:
    """Take them away again."""
    for name in BROKEN:
        shutil.rmtree(models_folder / name, ignore_errors=True)


def write_tiny(models_folder: Path) -> str:
    """Put the tiny model's config and tokenizer beside the real model in the volume; returns its source."""
    real, folder = models_folder / REAL.rsplit("/", 1)[-1], models_folder / TINY
    if not real.exists():
        raise LookupError(f"no {real}: run `make model`, or set MINISGL_MODELS_DIR to the folder behind the claim")
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)  # pods read it as another user
    config = json.loads((real / "config.json").read_text()) | TINY_SHAPE
    (folder / "config.json").write_text(json.dumps(config))
    for path in real.iterdir():
        if path.suffix in {".json", ".jinja"} and path.name != "config.json":
            shutil.copyfile(path, folder / path.name)
    return f"pvc://models/{TINY}"
