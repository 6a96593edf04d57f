"""One hash over files, folders and texts: the name under which a built thing is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

DIGITS = 12  # 48 bits: enough to tell a few thousand builds apart, short enough to read in a tag
IGNORED_FOLDERS = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}


def digest(*parts: str | Path) -> str:
    """Hash texts, and files and folders with their contents, in the order given."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            _add(total, "text", part.encode())
            continue
        for path in walk(part):
            name = path.relative_to(part).as_posix() if path != part else path.name
            mode = "x" if path.stat().st_mode & 0o100 else "-"
            _add(total, f"{mode} {name}", path.read_bytes())
    return total.hexdigest()[:DIGITS]


def walk(path: Path) -> Iterator[Path]:
    """The files below `path` (or itself) in a stable order, without caches and compiled files."""
    if not path.is_dir():
        yield path
        return
    for child in sorted(path.iterdir()):
        if child.name in IGNORED_FOLDERS or child.name.endswith((".pyc", ".egg-info")):
            continue
        yield from walk(child)


def _add(total: hashlib._Hash, name: str, content: bytes) -> None:
    # The lengths keep two neighbouring parts from running into each other.
    total.update(f"{len(name)} {name} {len(content)} ".encode())
    total.update(content)
