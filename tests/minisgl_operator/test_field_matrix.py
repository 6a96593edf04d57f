"""Every field of the spec x every kind of mistake, and every field there and back again; both read from the schema.

A mistake is refused at apply with the field's name, or becomes InvalidSpec with it, or is no mistake and becomes
children. tests/e2e/test_resource.py asks a real API server the same, and what it says to those children.
"""

import copy
from collections import Counter
from typing import Any

import pytest

from minisgl_operator.objects import Child
from support.fields import Field, fields, spec_with, values
from support.mistakes import fate, mistakes
from support.stage import Stage

EVERY = list(mistakes())
FIELDS = list(fields())
LEAVES = [field for field in FIELDS if field.is_leaf and len(field.schema.get("enum", "..")) > 1]
# What can never be right, wherever it stands.
NEVER = {"missing", "wrong type", "unknown value", "unknown field", "negative"}
# Fields that no child shows: `pause` is about the operator itself, and what is said of a GPU is for the plan; both have
# tests of their own.
WITHOUT_CHILD = {"pause", "device.gpu", "device.memory"}


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_a_mistake_is_refused_with_the_name_of_its_field_or_is_none(field: Field) -> None:
    for mistake in EVERY:
        if mistake.field is field or mistake.field.path == field.path:
            end = fate(mistake.spec)
            assert end.where == "apply" or mistake.kind not in NEVER, (str(mistake), end)
            assert end.where == "built" or field.name in end.message, (str(mistake), end)


def test_every_field_has_mistakes_and_some_end_at_each_place() -> None:
    assert {mistake.field.path for mistake in EVERY} == {field.path for field in FIELDS}
    ends = Counter(fate(mistake.spec).where for mistake in EVERY if len(mistake.field.path) < 4)
    assert ends.keys() == {"apply", "reconcile", "built"}


def stored(stage: Stage) -> dict[str, Any]:
    """The children's bytes, without what the API server counts."""
    counted = {"resourceVersion", "generation", "managedFields"}
    return copy.deepcopy(
        {
            child.plural: {
                **body,
                "metadata": {name: value for name, value in body["metadata"].items() if name not in counted},
            }
            for child in Child
            if (body := stage.cluster.objects.get((child.plural, *stage.key))) is not None
        }
    )


@pytest.mark.parametrize("field", LEAVES, ids=str)
def test_a_field_is_seen_in_the_children_and_gone_without_a_trace(field: Field) -> None:
    first = spec_with(field.path, values(field.schema, field.path)[0], absent=not field.required)
    stage = Stage(**first)
    stage.reconcile()
    before = stored(stage)
    for value in values(field.schema, field.path):
        second = spec_with(field.path, value)
        if fate(second).where != "built":
            continue
        stage.cluster.replace_spec(stage.key, second)
        stage.reconcile()
        between = stored(stage)
        stage.cluster.replace_spec(stage.key, first)
        stage.reconcile()
        assert stored(stage) == before
        if between != before:
            assert str(field) not in WITHOUT_CHILD
            return
    assert str(field) in WITHOUT_CHILD, "no value of this field has an effect"
