"""What people get wrong in a field, whatever the field: one spec per kind of mistake, made from the schema."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jsonschema

from charts.openapi import strict
from minisgl_operator.api import Key
from minisgl_operator.build import children
from minisgl_operator.errors import SpecError
from minisgl_operator.objects import Child, Object
from minisgl_operator.reconcile import parse
from support.cluster_objects import SETTINGS, UID
from support.fields import SPEC, Field, Schema, fields, minimal, spec_with, values

WRONG_TYPE = {"string": 7, "integer": "seven", "number": "seven", "boolean": "yes", "object": "text", "array": "text"}
HUGE_TEXT = "a" * 100_000
VALIDATOR = jsonschema.Draft202012Validator(strict(SPEC))


@dataclass(frozen=True)
class Mistake:
    """A spec with one field that somebody got wrong (or not: some of these are valid for some fields)."""

    field: Field
    kind: str
    spec: Schema

    def __str__(self) -> str:
        return f"{self.field}: {self.kind}"


def mistakes() -> Iterator[Mistake]:
    """Every field with every kind of mistake that can be made in it."""
    for field in fields():
        if field.required:
            yield Mistake(field, "missing", spec_with(field.path, None, absent=True))
        for kind, value in _wrong(field):
            yield Mistake(field, kind, spec_with(field.path, value))


def _wrong(field: Field) -> Iterator[tuple[str, Any]]:
    schema = field.schema
    if schema.get("x-kubernetes-int-or-string"):
        yield from (("wrong type", True), ("negative", -1), ("negative text", "-1"), ("huge", 2**63 - 1), ("empty", ""))
        yield "64 characters", "a" * 64
        return
    kind = schema["type"]
    yield "wrong type", WRONG_TYPE[kind]
    if kind in ("integer", "number"):
        yield from (("negative", -1), ("huge", 2**63 - 1))
    if kind == "string":
        yield from (("empty", ""), ("64 characters", "a" * 64), ("huge", HUGE_TEXT))
        if "enum" in schema:
            yield "unknown value", "no-such-value"
    if kind == "object":
        yield "empty", {}
        if "additionalProperties" in schema:
            some = values(schema["additionalProperties"], (*field.path, "{}"))[0]
            yield "huge", {f"key-{number}": some for number in range(1000)}
            yield from (("a wrong key", {"a wrong key": some}), ("an empty key", {"": some}))
        else:
            yield "unknown field", {"noSuchField": 1}
    if kind == "array":
        some = minimal(schema["items"], (*field.path, "[]"))
        yield from (("empty", []), ("duplicate", [some, some]), ("huge", [some] * 1000))


@dataclass(frozen=True)
class Fate:
    """Where a spec ends: refused at `apply`, InvalidSpec at `reconcile`, or `built`; with the author's sentence."""

    where: str
    message: str = ""
    children: dict[Child, Object] | None = None


def fate(spec: Schema) -> Fate:
    """What becomes of a spec; CEL rules are not asked."""
    if (message := refusal(spec)) is not None:
        return Fate("apply", message)
    try:
        return Fate("built", children=children(Key("ns", "m"), UID, parse(spec), SETTINGS, None))
    except SpecError as error:
        return Fate("reconcile", str(error))


def refusal(spec: Schema) -> str | None:
    """Why the schema alone refuses a spec, with the path, or None. CEL rules are left to a real API server."""
    error = jsonschema.exceptions.best_match(VALIDATOR.iter_errors(spec))
    if error is not None:
        return f"{error.json_path}: {error.message[:300]}"
    return next(_duplicates(SPEC, spec, "$"), None)


def _duplicates(schema: Schema, value: Any, path: str) -> Iterator[str]:
    """JSON schema has no word for lists that are sets or maps."""
    if isinstance(value, dict):
        for name, inner in value.items():
            below = schema.get("properties", {}).get(name, schema.get("additionalProperties", {}))
            yield from _duplicates(below, inner, f"{path}.{name}")
    if isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys", ())
        if schema.get("x-kubernetes-list-type") in ("map", "set"):
            seen = [[item.get(key) for key in keys] if keys else item for item in value]
            if any(item in seen[:position] for position, item in enumerate(seen)):
                yield f"{path}: duplicate"
        for item in value:
            yield from _duplicates(schema["items"], item, f"{path}[]")
