"""`spec.model`: which model is served, where it lies, and what opens that place.

Every field's description is what `kubectl explain` prints.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from minisgl_operator.api.part import Name, Part

SOURCE_PATTERN = (
    r"^(pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[A-Za-z0-9_][A-Za-z0-9._-]*)*"
    r"|hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9][A-Za-z0-9._/-]*)?)$"
)


class TokenSecret(Part):
    """A key of a Secret in the model's namespace."""

    name: Name = Field(description="Name of the Secret.")
    key: Name = Field(default="token", description="Key within the Secret.")


class Model(Part):
    """Which model is served, and under which name."""

    source: Annotated[str, StringConstraints(max_length=512, pattern=SOURCE_PATTERN)] = Field(
        description="Where the model lies: pvc://<claim>/<path> for a volume in this namespace, or "
        "hf://<org>/<name>[@<revision>] for the Hugging Face hub. A change replaces the pods."
    )
    served_name: Annotated[str, StringConstraints(max_length=253, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")] | None = (
        Field(default=None, description="Model name that clients ask for. Unset: the name of this object.")
    )
    token_secret: TokenSecret | None = Field(
        default=None,
        description="Hugging Face token, given to the pods as HF_TOKEN. The operator never reads the Secret.",
    )
