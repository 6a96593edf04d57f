"""Every field of the CRD's spec with values for it, read from the schema itself: minimal, other, and wrong ones.

A path is a tuple of property names; `[]` stands for an item of a list, `{}` for a value of a map.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from minisgl_operator import crd

Path = tuple[str, ...]
Schema = dict[str, Any]
SPEC: Schema = crd.build()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]

# Texts for all string fields: a field takes those that its own pattern and length allow.
TEXTS = (
    "text-1", "other-1", "x", "1", "2Gi", "3", "15s", "20s", "10%", "20%", "10.0.0.0/8", "192.168.0.0/16", "fa",
    "torch", "example.com/gpu", "example.com/other", "pvc://models/other", "hf://org/name@main", "--new=1", "--newer",
    "http://store-1:9000", "http://store-2:9001",
)  # fmt: skip
KEYS = {"requests": "memory", "limits": "memory"}  # of maps; any other map has labels' keys
SAMPLES = {("networkPolicy", "from", "[]", "ipBlock", "except", "[]"): ("10.1.0.0/16", "10.2.0.0/16")}
REF: Schema = {"name": "text-1", "key": "text-1"}
# What a part's rules ask for: (end of its path, unless one of these is set, what to set).
WITHIN: tuple[tuple[Path, set[str], Schema], ...] = (
    (("tolerations", "[]"), set(), {"key": "x"}),
    (("matchExpressions", "[]"), {"values"}, {"operator": "Exists"}),
    (("matchFields", "[]"), {"values"}, {"operator": "Exists"}),
    (("valueFrom",), {"secretKeyRef", "configMapKeyRef"}, {"secretKeyRef": REF}),
    (("from", "[]"), {"podSelector", "namespaceSelector", "ipBlock"}, {"podSelector": {}}),
    (("ipBlock",), {"cidr"}, {"cidr": "10.0.0.0/8"}),
    (("monitoring",), {"enabled"}, {"enabled": True}),
)
# What a field needs beside itself.
TOGETHER: dict[str, Schema] = {
    "tolerationSeconds": {"effect": "NoExecute"},
    "values": {"operator": "In"},
    "s3": {"source": "s3://bucket/prefix"},
}


@dataclass(frozen=True)
class Field:
    """One node of the schema."""

    path: Path
    schema: Schema
    required: bool = False

    def __str__(self) -> str:
        return ".".join(self.path).replace(".[]", "[]").replace(".{}", "{}")

    @property
    def name(self) -> str:
        """The property's name, which a message about it must hold."""
        return next(part for part in reversed(self.path) if part not in ("[]", "{}"))

    @property
    def is_leaf(self) -> bool:
        """Whether it holds a value, not further fields."""
        return not {"properties", "additionalProperties", "items"} & self.schema.keys()


def fields(schema: Schema = SPEC, path: Path = ()) -> Iterator[Field]:
    """All nodes below `schema`, depth first."""
    for name, prop in schema.get("properties", {}).items():
        yield Field((*path, name), prop, name in schema.get("required", ()))
        yield from fields(prop, (*path, name))
    for keyword, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if keyword in schema:
            yield Field((*path, mark), schema[keyword])
            yield from fields(schema[keyword], (*path, mark))


def values(schema: Schema, path: Path = ()) -> list[Any]:
    """Valid values, the plainest first; at least one."""
    if path in SAMPLES:
        return list(SAMPLES[path])
    if "enum" in schema:
        return list(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return [1, 2, *(text for text in TEXTS if re.search(schema["pattern"], text))]
    kind = schema["type"]
    if kind == "boolean":
        return [True, False]
    if kind in ("integer", "number"):
        low = schema.get("minimum", 0)
        high = schema.get("maximum", low + 1)
        return [low, min(low + 1, high), high]
    if kind == "string":
        found = [text for text in TEXTS if _fits(schema, text)]
        assert found, f"{path}: give TEXTS a text that matches {schema.get('pattern')}"
        return found
    if kind == "array":
        return [[minimal(schema["items"], (*path, "[]"))] * schema.get("minItems", 0)]
    return [minimal(schema, path)]


def minimal(schema: Schema, path: Path = (), without: str = "", instead: str = "") -> Any:
    """The smallest valid value; of an object, `without` one of its fields, and knowing that `instead` will be set."""
    if schema.get("type") != "object":
        return values(schema, path)[0]
    found = {
        name: minimal(schema["properties"][name], (*path, name))
        for name in schema.get("required", ())
        if name not in (without, instead)
    }
    for part, unless, beside in WITHIN:
        if path[-len(part) :] == part and instead not in unless:
            found |= beside
    found |= TOGETHER.get(instead, {})
    return {name: value for name, value in found.items() if name not in (without, instead)}


def spec_with(path: Path, value: Any, *, absent: bool = False) -> Schema:
    """The smallest spec that holds `value` at `path`; or, `absent`, all around it but not the field."""
    found: Schema = _put(SPEC, (), path, value, absent)
    return found


def _put(schema: Schema, here: Path, rest: Path, value: Any, absent: bool) -> Any:
    step, further = rest[0], rest[1:]
    inner = schema["items"] if step == "[]" else schema.get("additionalProperties") if step == "{}" else None
    if inner is None:
        inner = schema["properties"][step]
    is_last = not further
    if step == "[]":
        if is_last:
            return [] if absent else [value]
        return [_put(inner, (*here, step), further, value, absent)]
    if step == "{}":
        if is_last and absent:
            return {}
        key = KEYS.get(here[-1], "text-1")
        return {key: value if is_last else _put(inner, (*here, step), further, value, absent)}
    around = minimal(schema, here, instead=step)
    if is_last and absent:
        return around
    return around | {step: value if is_last else _put(inner, (*here, step), further, value, absent)}


def _fits(schema: Schema, text: str) -> bool:
    is_long_enough = schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", len(text))
    return is_long_enough and re.search(schema.get("pattern", ""), text) is not None
