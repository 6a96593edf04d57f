"""A model in a local folder."""

from __future__ import annotations

from pathlib import Path

from minisgl.errors import StartError
from minisgl.termination import Reason


def look(model_path: str) -> Path | None:
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
