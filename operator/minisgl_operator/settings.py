"""The operator's settings. Each is a flag and an environment variable: `--resync-seconds`, `MINISGL_RESYNC_SECONDS`.

A flag wins over the variable. Read once, at start; nothing reads the environment later.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from minisgl import __version__

PREFIX = "MINISGL_"


class Settings(BaseModel):
    """What an administrator decides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    watch_namespaces: str = Field(
        default="", description="Comma-separated namespaces whose models are looked after. Empty: all."
    )
    runtime_image: str = Field(
        default=f"ghcr.io/minisgl/minisgl-runtime:{__version__}",
        min_length=1,
        description="Image of models that name none. A new value reaches a model with its next change of spec.",
    )
    runtime_image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="imagePullPolicy of models that name none."
    )
    runtime_class_name: str = Field(default="", description="RuntimeClass of models that name none, e.g. nvidia.")
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8080, description="Port of /metrics; 0 turns it off."
    )
    health_port: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=8081, description="Port of /healthz for the liveness and readiness probes."
    )
    resync_seconds: Annotated[int, Field(ge=1, le=86400)] = Field(
        default=300, description="Every model is compared with the cluster this often, even if no event came."
    )
    workers: Annotated[int, Field(ge=1, le=100)] = Field(
        default=8,
        description="Models that are reconciled at the same time. One model is never reconciled twice at once.",
    )
    lease_namespace: str = Field(
        default="",
        description="Namespace of the Lease that lets one of several operators act. Empty: no Lease; run only one.",
    )
    lease_name: str = Field(default="minisgl-operator", min_length=1, description="Name of that Lease.")
    identity: str = Field(
        default="",
        description="Name of this operator in the Lease, such as its pod's; one that is restarted under the same name "
        "acts again at once. Empty: host name and a random part.",
    )
    log_format: Literal["json", "text"] = Field(
        default="json", description="json: one object a line. text: for people."
    )

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The watched namespaces; empty means all."""
        return tuple(name for name in (part.strip() for part in self.watch_namespaces.split(",")) if name)


def read(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Settings of a command line and an environment; ends the process with one sentence if a value is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m minisgl_operator", description="Turn MiniSGLModels into pods that serve.", allow_abbrev=False
    )
    values: dict[str, str] = {}
    for name, info in Settings.model_fields.items():
        variable = PREFIX + name.upper()
        text = f"{info.description} [{variable}, default {info.default!r}]".replace("%", "%%")
        parser.add_argument("--" + name.replace("_", "-"), default=argparse.SUPPRESS, metavar="VALUE", help=text)
        if environ.get(variable):
            values[name] = environ[variable]
    values |= vars(parser.parse_args(argv))
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        parser.error(f"--{name.replace('_', '-')}={first['input']}: {first['msg']}")
