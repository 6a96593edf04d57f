"""What all parts of the resource are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel

# The length of an object's name at most; the API server checks its shape where it is used.
Name = Annotated[str, StringConstraints(min_length=1, max_length=253)]
Quantity = int | str


class Part(BaseModel):
    """Base of every part: camelCase in JSON, immutable.

    Unknown fields are refused by the API server. Here they are ignored, so that an operator older than the CRD works.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )
