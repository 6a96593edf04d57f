"""Where a model comes from: a local folder, or a repository on the Hugging Face hub. Answers with a folder.

Used by every process that reads a part of the model; each names the files it needs. Knows nothing of what is in them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from minisgl.errors import StartError
from minisgl.termination import Reason

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")

# Never Python files: no code of a checkpoint is run. Pickled weights are not read either.
WORDS = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
SETTINGS = ("*.json", "*.jinja")
EVERYTHING = (*SETTINGS, "*.safetensors")


def find_model(model_path: str, wanted: Sequence[str] = EVERYTHING) -> Path:
    """The folder of `model_path`: local, with `~` expanded; else the hub's `wanted` files of `org/name[@revision]`."""
    folder = _look(model_path)
    if folder is not None:
        return folder
    if not HUB_ID.fullmatch(model_path):
        raise StartError(
            Reason.MODEL_NOT_FOUND,
            f"--model-path {model_path}: no such folder, and not a repository id (org/name or org/name@revision)",
        )
    return _download(model_path, wanted)


def _look(model_path: str) -> Path | None:
    """The local folder, or None if there is none of this name. What cannot be looked at is refused."""
    try:
        place = Path(model_path).expanduser()
        if place.is_dir():
            return place
        is_there = place.exists()
    except (OSError, RuntimeError) as error:  # no right to look, a name too long, no such user after the ~
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise StartError(
            Reason.MODEL_NOT_FOUND,
            f"--model-path {model_path} cannot be looked at: {why}; name a folder that this user may read",
        ) from error
    if is_there:
        raise StartError(
            Reason.MODEL_NOT_FOUND, f"--model-path {model_path} is a file; name the folder that holds config.json"
        )
    return None


def _download(hub_id: str, wanted: Sequence[str]) -> Path:
    # Imported here: a local folder needs no hub client (0.3 s).
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    name, _, revision = hub_id.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(wanted)))
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise StartError(
            Reason.MODEL_NOT_FOUND,
            f"--model-path {hub_id}: no such local folder, and not on the Hugging Face hub ({_first(error)}); "
            "check the name, and HF_TOKEN for a gated model",
        ) from error
    except OSError as error:  # network, disk: the next try may do
        raise StartError(
            Reason.START_FAILED,
            f"--model-path {hub_id}: the Hugging Face hub did not give it ({_first(error)}); "
            "check the network and the disk, or give a local folder",
        ) from error


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
