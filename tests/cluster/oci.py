"""Writes a one-layer OCI image as a tar file, from files and links alone: for images that need no distribution.
Same content, same bytes. Does not know who loads it."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Image:
    """What a container finds: `files` (path → file on disk or text), `links` (path → target), and how it starts."""

    entrypoint: tuple[str, ...]
    files: Mapping[str, Path | str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, int] = field(default_factory=dict)  # path → mode
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = "65532:65532"
    workdir: str = "/"


def write_image(image: Image, name: str, target: IO[bytes]) -> None:
    """Write `image` under its full name (registry/repository:tag) as an OCI layout."""
    layer = _layer(image)
    config = _json({
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {
            "User": image.user,
            "Env": [f"{key}={value}" for key, value in sorted(image.environment.items())],
            "Entrypoint": list(image.entrypoint),
            "WorkingDir": image.workdir,
        },
        "rootfs": {"type": "layers", "diff_ids": [_describe(LAYER, layer)["digest"]]},
    })  # fmt: skip
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _describe(CONFIG, config),
            "layers": [_describe(LAYER, layer)],
        }
    )
    entry = {**_describe(MANIFEST, manifest), "annotations": {"io.containerd.image.name": name}}
    with tarfile.open(fileobj=target, mode="w") as archive:
        _add(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(archive, "index.json", _json({"schemaVersion": 2, "manifests": [entry]}))
        for blob in (layer, config, manifest):
            _add(archive, f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob)


def _layer(image: Image) -> bytes:
    buffer = io.BytesIO()
    modes = {folder: 0o755 for path in (*image.files, *image.links) for folder in _parents(path)} | dict(image.folders)
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, mode in sorted(modes.items()):
            info = tarfile.TarInfo(path)
            info.type, info.mode = tarfile.DIRTYPE, mode
            archive.addfile(info)
        for path, target in sorted(image.links.items()):
            info = tarfile.TarInfo(path)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
        for path, source in sorted(image.files.items()):
            if isinstance(source, str):
                _add(archive, path, source.encode())
            else:
                _add(archive, path, source.read_bytes(), 0o755 if source.stat().st_mode & 0o100 else 0o644)
    return buffer.getvalue()


def _parents(path: str) -> list[str]:
    return [parent.as_posix() for parent in Path(path).parents if parent != Path()]


def _add(archive: tarfile.TarFile, path: str, content: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(path)  # time 0, owner root: nothing of this machine gets in
    info.size, info.mode = len(content), mode
    archive.addfile(info, io.BytesIO(content))


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _describe(media_type: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(blob).hexdigest()}", "size": len(blob)}
