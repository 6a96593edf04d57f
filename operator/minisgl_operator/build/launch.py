"""The server's command line: the user's `spec.runtime` and what the operator decides itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minisgl.args import LaunchArgs
from minisgl.argv import to_argv, validate
from minisgl.errors import UsageError
from minisgl_operator.api import Key, Spec
from minisgl_operator.errors import SpecError

PORT = 1919
# Endpoints of a leaving pod vanish from all nodes within a few seconds; until then new requests still arrive.
DRAIN_DELAY_SECONDS = 5


@dataclass(frozen=True)
class Launch:
    """A checked command line: its tokens, and its meaning."""

    argv: list[str]
    args: LaunchArgs


def build_launch(key: Key, spec: Spec, model_path: str) -> Launch:
    """Merge and check. Raises SpecError with the runtime's own sentence."""
    decided: dict[str, Any] = {
        "modelPath": model_path,
        "servedModelName": spec.model.served_name or key.name,
        "device": spec.device.type,
        "host": "0.0.0.0",  # noqa: S104 (a pod has one network, and the Service must reach it)
        "port": PORT,
    }
    values = {"drainDelaySeconds": DRAIN_DELAY_SECONDS} | spec.runtime | decided
    try:
        return Launch([*to_argv(values), *spec.extra_args], validate(values))
    except UsageError as error:
        raise SpecError(f"spec.runtime: {error}") from error
