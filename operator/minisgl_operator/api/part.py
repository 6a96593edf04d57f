"""What all parts of the resource are made of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Part(BaseModel):
    """Base of every part: camelCase in JSON, immutable.

    Unknown fields never get here: the API server refuses them, or drops them where a client asks for no strict
    validation. Those of a newer CRD are ignored, so that an operator older than the CRD works.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )

    def as_written(self) -> dict[str, Any]:
        """In Kubernetes' words, as its author wrote it: an empty selector takes everything, an absent one nothing."""
        return self.model_dump(exclude_unset=True, exclude_none=True)


def rules(*given: tuple[str, ...]) -> ConfigDict:
    """CEL rules of a part as (expression, message[, path]): the API server refuses what breaks one, with that message.

    `path` names the field that is told as wrong; without it, it is the part itself.
    """
    keys = ("rule", "message", "fieldPath")
    validations: list[Any] = [dict(zip(keys, each, strict=False)) for each in given]
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": validations})


def merged_by(*keys: str) -> dict[str, Any]:
    """A list that is merged by these keys, in which no two items have the same ones."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}
