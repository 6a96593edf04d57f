"""Specs that differ in whatever changes the shape of a pod: the wide fields in every combination, all others singly."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

from minisgl_operator import api
from support.fields import fields, spec_with, values
from support.mistakes import fate

Object = dict[str, Any]
DEVICES: tuple[Object, ...] = ({"type": "cpu"}, {"type": "cuda"}, {"type": "cuda", "resourceName": "example.com/gpu"})
SOURCES = ("pvc://models/x", "hf://org/name@main", "s3://bucket/prefix", "oci://registry/image:tag/path")
TOKENS: tuple[Object, ...] = ({}, {"tokenSecret": {"name": "hub"}})
POD: Object = {
    "metadata": {"labels": {"team": "a"}, "annotations": {"example.org/note": "x"}},
    "spec": {
        "nodeSelector": {"gpu": "h200"},
        "tolerations": [{"operator": "Exists"}],
        "runtimeClassName": "nvidia",
        "imagePullSecrets": [{"name": "registry"}],
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        "containers": [{"name": "minisgl", "env": [{"name": "NO_PROXY", "value": "x"}]}],
    },
}
TEMPLATES: tuple[Object, ...] = ({}, {"podTemplate": POD})


def specs() -> Iterator[Object]:
    """Valid specs, each with its own shape of pod."""
    known = [source for source in SOURCES if re.search(api.SOURCE_PATTERN, source)]
    for device, source, ranks, token, pod in itertools.product(DEVICES, known, (1, 2), TOKENS, TEMPLATES):
        spec = {"model": {"source": source, **token}, "device": device, "runtime": {"tensorParallelSize": ranks}, **pod}
        if fate(spec).where == "built":  # a token for a claim may be refused
            yield spec
    for field in fields():
        if field.is_leaf and field.path[0] != "runtime":
            spec = spec_with(field.path, values(field.schema, field.path)[0])
            if fate(spec).where == "built":
                yield spec
