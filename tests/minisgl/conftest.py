"""One thread per test process, set before torch is imported: two threads on contended cores are many times slower.

And what several rooms test with: a saved tiny model per family, and engines on it.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from minisgl.device import prepare_cpu

if TYPE_CHECKING:
    from minisgl.scheduler.driver import Driver

os.environ.setdefault("OMP_NUM_THREADS", "1")
prepare_cpu()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    """Folder and oracle of a family, saved once."""
    from support.checkpoints import save_tiny

    saved: dict[str, tuple[Path, Any]] = {}

    def get(family: str) -> tuple[Path, Any]:
        if family not in saved:
            folder = tmp_path_factory.mktemp(family)
            saved[family] = folder, save_tiny(folder, family)
        return saved[family]

    return get


@pytest.fixture(scope="session")
def driver(checkpoint: Callable[[str], tuple[Path, Any]]) -> "Callable[..., Driver]":
    """A driver on a tiny model; keywords are launch arguments."""
    from minisgl.args import LaunchArgs
    from minisgl.scheduler.driver import Driver, build_engine

    def make(family: str = "llama", **args: Any) -> Driver:
        folder, _ = checkpoint(family)
        defaults = {"page_size": 4, "num_pages": 64, "device": "cpu"}
        return Driver(build_engine(LaunchArgs(model_path=str(folder), **(defaults | args))))

    return make
