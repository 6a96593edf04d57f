"""A tiny model that also has words: one token per byte, 256 ends an answer."""

from pathlib import Path
from typing import Any

import pytest

from support.checkpoints import save_tiny
from support.words import EOS, save_words


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Folder and oracle."""
    folder = tmp_path_factory.mktemp("talker")
    oracle = save_tiny(folder, "llama", vocab_size=258, eos_token_id=EOS)
    return save_words(folder), oracle
