"""What tells a local checkpoint from another, cheaply: it has no commit.

Reads settings and headers, never the weights: names, shapes and sizes change with any checkpoint but one of the
same shapes, such as the same model trained further.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

READ_WHOLE = ("config.json", "generation_config.json", "tokenizer_config.json", "model.safetensors.index.json")
MAX_HEADER_BYTES = 100 * 2**20  # safetensors' own limit


def fingerprint(folder: Path) -> str:
    """`sha256:` and 16 digits."""
    told = hashlib.sha256()
    for name in READ_WHOLE:
        told.update(_part(name, _read(folder / name)))
    for file in sorted(folder.glob("*.safetensors")):
        told.update(_part(file.name, _header(file)))
    return f"sha256:{told.hexdigest()[:16]}"


def _part(name: str, content: bytes) -> bytes:
    """One file, set apart from its neighbours."""
    return hashlib.sha256(name.encode()).digest() + hashlib.sha256(content).digest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # who needs it says why it cannot be read


def _header(path: Path) -> bytes:
    """The size of a safetensors file and its header, which names every tensor with type and shape."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            return size.to_bytes(8, "little") + file.read(min(length, MAX_HEADER_BYTES))
    except OSError:
        return b""
