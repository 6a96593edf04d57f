"""Choosing objects by their labels, as everywhere in Kubernetes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from minisgl_operator.api.part import Part, rules
from minisgl_operator.api.scalar import LabelKey, Labels, LabelValue


class LabelRequirement(Part):
    """One condition on one label."""

    model_config = rules(
        (
            "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            "values must be given with operator In and NotIn, and left out with Exists and DoesNotExist",
        )
    )

    key: LabelKey = Field(description="Key of the label that is looked at.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="In: the label has one of values. NotIn: it has none of them. Exists: the label is there. "
        "DoesNotExist: it is not."
    )
    values: Annotated[list[LabelValue], Field(max_length=32)] = Field(
        default=[], description="Values that operator In or NotIn compares with."
    )


class LabelSelector(Part):
    """Objects that carry certain labels; an empty selector takes all."""

    match_labels: Labels = Field(default={}, description="Labels that must all be there with these values.")
    match_expressions: Annotated[list[LabelRequirement], Field(max_length=16)] = Field(
        default=[], description="Conditions on labels that must all hold."
    )
