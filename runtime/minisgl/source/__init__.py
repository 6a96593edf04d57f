"""Where a model comes from: a local folder, the Hugging Face hub, or an object store. Answers with a folder.

Used by every process that reads a part of the model; each names the files it needs. Knows nothing of what is in them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from minisgl.errors import StartError
from minisgl.source.cache import Progress, say_nothing
from minisgl.source.folder import look
from minisgl.termination import Reason

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
BUCKET = re.compile(r"s3://([a-z0-9][a-z0-9._-]*)((?:/[^/]+)*)/?")
# How the folders of fetched models are named: a commit of the hub, a digest of what a bucket holds.
REVISION = re.compile(r"[0-9a-f]{40}|s3-[0-9a-f]{16}")

# Never Python files: no code of a checkpoint is run. Pickled weights are not read either.
WORDS = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
SETTINGS = ("*.json", "*.jinja")
EVERYTHING = (*SETTINGS, "*.safetensors")


def find_model(model_path: str, wanted: Sequence[str] = EVERYTHING, progress: Progress = say_nothing) -> Path:
    """The folder of `model_path`, local with `~` expanded, or with the `wanted` files fetched into it.

    `progress` hears how many bytes of how many are there. StartError says what is not there, or why.
    """
    if found := BUCKET.fullmatch(model_path):
        from minisgl.source import bucket  # a local folder needs no client of an object store

        return bucket.download(found[1], found[2].strip("/"), EVERYTHING, wanted, progress)
    folder = look(model_path)
    if folder is not None:
        return folder
    if HUB_ID.fullmatch(model_path):
        from minisgl.source import hub  # 0.3 s

        return hub.download(model_path, wanted, progress)
    raise StartError(
        Reason.MODEL_NOT_FOUND,
        f"--model-path {model_path}: no such folder, and not a repository id (org/name or org/name@revision) or "
        "a place in an object store (s3://bucket/folder)",
    )


def revision_of(folder: Path) -> str | None:
    """Which revision a folder of `find_model` holds: commit of the hub, or digest of a bucket; None for a local one."""
    return folder.name if REVISION.fullmatch(folder.name) else None
