"""A model on the Hugging Face hub. Its client keeps the files (HF_HOME), resumes, and locks what others fetch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is of the HTTP library it stands on
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm.auto import tqdm

from minisgl.errors import StartError
from minisgl.source.cache import Progress, is_full, no_room
from minisgl.termination import Reason


def download(hub_id: str, wanted: Sequence[str], progress: Progress) -> Path:
    """The folder with the `wanted` files of `org/name[@revision]`."""
    name, _, revision = hub_id.partition("@")
    try:
        found = huggingface_hub.snapshot_download(
            name, revision=revision or None, allow_patterns=list(wanted), tqdm_class=_listener(progress)
        )
    except GatedRepoError as error:
        raise StartError(
            Reason.ACCESS_DENIED,
            f"--model-path {hub_id}: the Hugging Face hub refuses it ({_first(error)}); "
            "HF_TOKEN must belong to an account that has accepted the model's terms",
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise StartError(
            Reason.MODEL_NOT_FOUND,
            f"--model-path {hub_id}: no such local folder, and not on the Hugging Face hub ({_first(error)}); "
            "check the name, and HF_TOKEN for a gated model",
        ) from error
    except (OSError, HTTPError) as error:  # network, disk: the next try may do
        if isinstance(error, OSError) and is_full(error):
            raise no_room(hub_id, "HF_HOME", error) from error
        denied = isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403)
        raise StartError(
            Reason.ACCESS_DENIED if denied else Reason.START_FAILED,
            f"--model-path {hub_id}: the Hugging Face hub did not give it ({_first(error)}); "
            + ("check HF_TOKEN" if denied else "check the network and the disk, or give a local folder"),
        ) from error
    return Path(found)


def _listener(progress: Progress) -> type[Any]:
    """A progress bar that draws nothing and tells `progress`. Of the client's bars the one of bytes on disk counts."""

    class Listener(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._counts = kwargs.get("unit") == "B" and str(kwargs.get("desc", "")).startswith("Reconstructing")
            kwargs.pop("name", None)
            super().__init__(*args, **(kwargs | {"file": io.StringIO(), "mininterval": 0}))

        def display(self, *_: Any, **__: Any) -> None:
            """Draw nothing."""

        def update(self, n: float | None = 1) -> bool | None:
            drawn: bool | None = super().update(n)
            if self._counts and self.total:
                progress(int(self.n), int(self.total))
            return drawn

    return Listener


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
