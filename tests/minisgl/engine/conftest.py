"""A saved tiny model per family, and engines on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minisgl.args import LaunchArgs
from minisgl.scheduler.driver import Driver, build_engine
from support.checkpoints import save_tiny


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    """Folder and oracle of a family, saved once."""
    saved: dict[str, tuple[Path, Any]] = {}

    def get(family: str) -> tuple[Path, Any]:
        if family not in saved:
            folder = tmp_path_factory.mktemp(family)
            saved[family] = folder, save_tiny(folder, family)
        return saved[family]

    return get


@pytest.fixture(scope="session")
def driver(checkpoint: Callable[[str], tuple[Path, Any]]) -> Callable[..., Driver]:
    """A driver on a tiny model; keywords are launch arguments."""

    def make(family: str = "llama", **args: Any) -> Driver:
        folder, _ = checkpoint(family)
        defaults = {"page_size": 4, "num_pages": 64, "device": "cpu"}
        return Driver(build_engine(LaunchArgs(model_path=str(folder), **(defaults | args))))

    return make
