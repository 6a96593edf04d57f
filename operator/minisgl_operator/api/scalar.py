"""Strings and numbers with Kubernetes' own rules: names, labels, quantities, percentages.

A value that the API server would refuse in a child is refused here first, where the message can name the field.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema

# Quantities such as 500m, 2, 16Gi and 1e9. The API server's own pattern also has signs, but nothing here may be
# negative, and exponents that no amount has: 1e5.5 is no number, 1e999999999 one of a gigabyte.
QUANTITY_PATTERN = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$"
PERCENT_PATTERN = r"^(100|[1-9]?[0-9])%$"
SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
LABEL_KEY_PATTERN = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


def harmless(key: str) -> str:
    """Kubernetes copies this annotation of a new pod into its security context, which no author of a model decides."""
    if key.startswith(APPARMOR):
        raise ValueError("it would take the container out of its AppArmor profile; remove it")
    return key


Name = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=SUBDOMAIN_PATTERN)]
DataKey = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=317, pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, StringConstraints(max_length=63, pattern=LABEL_VALUE_PATTERN)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]
Annotations = Annotated[dict[Annotated[LabelKey, AfterValidator(harmless)], str], Field(max_length=64)]

Quantity = Annotated[
    Annotated[int, Field(ge=0)] | Annotated[str, StringConstraints(pattern=QUANTITY_PATTERN)],
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "pattern": QUANTITY_PATTERN,
        }
    ),
]
Quantities = Annotated[dict[LabelKey, Quantity], Field(max_length=16)]
IntOrPercent = Annotated[
    Annotated[int, Field(ge=0, le=1000)] | Annotated[str, StringConstraints(pattern=PERCENT_PATTERN)],
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "maximum": 1000,
            "pattern": PERCENT_PATTERN,
        }
    ),
]
