"""The CustomResourceDefinition as a dict, derived from `api` and the runtime's launch arguments.

Owns the step from pydantic's JSON schema to a structural one: no $ref, no null branch, no `additionalProperties`
beside `properties`. Defaults are kept only where Kubernetes itself must know them.
"""

from __future__ import annotations

from typing import Any

from minisgl.schema import runtime_schema
from minisgl_operator import api

Schema = dict[str, Any]
KEPT = (
    "type",
    "description",
    "enum",
    "default",
    "format",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
    "x-kubernetes-validations",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
)
KUBERNETES = tuple(key for key in KEPT if key.startswith("x-kubernetes-"))
INT_OR_STRING = "x-kubernetes-int-or-string"
NAME_RULES = (
    {
        "rule": f"self.metadata.name.size() <= {api.MAX_NAME_LEN}",
        "message": f"metadata.name may have at most {api.MAX_NAME_LEN} characters: pods are named after it",
    },
    {
        "rule": "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "message": "metadata.name must start with a letter and hold only a-z, 0-9 and -: a Service is named after it",
    },
)


def build() -> Schema:
    """The whole CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{api.PLURAL}.{api.GROUP}", "labels": {"app.kubernetes.io/part-of": "minisgl"}},
        "spec": {
            "group": api.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": api.KIND,
                "listKind": f"{api.KIND}List",
                "plural": api.PLURAL,
                "singular": "minisglmodel",
                "shortNames": ["msgl"],
                "categories": ["all", "minisgl"],
            },
            "versions": [
                {
                    "name": api.VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _root()},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "selectableFields": [
                        {"jsonPath": ".spec.model.source"},
                        {"jsonPath": ".spec.model.servedName"},
                        {"jsonPath": ".spec.device.type"},
                    ],
                    "additionalPrinterColumns": _columns(),
                }
            ],
        },
    }


def spec_schema() -> Schema:
    """The schema of `spec`."""
    spec = structural(api.Spec.model_json_schema(by_alias=True))
    spec["properties"]["runtime"] = runtime_schema()
    return spec


def as_values(schema: Schema) -> Schema:
    """The same as plain JSON schema for a chart's values: unknown keys are errors, Kubernetes' own keywords are gone.

    Rules over several fields stay with the API server.
    """
    result = {key: schema[key] for key in KEPT if key in schema and key not in ("default", "format", *KUBERNETES)}
    if INT_OR_STRING in schema:
        return result | {"type": ["integer", "string"]}
    if "properties" in schema:
        properties = {name: as_values(prop) for name, prop in schema["properties"].items()}
        return result | {"properties": properties, "additionalProperties": False}
    for key in ("items", "additionalProperties"):
        if key in schema:
            result[key] = as_values(schema[key])
    return result


def _root() -> Schema:
    spec = spec_schema()
    status = structural(api.Status.model_json_schema(by_alias=True))
    status["properties"]["conditions"] |= {
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    }
    _without_defaults(status)
    # Flux's trick: a fresh object is seen as "not observed yet", so that `helm install --wait` really waits.
    status["default"] = {"observedGeneration": -1}
    return {
        "type": "object",
        "description": "One large language model, served behind an OpenAI-compatible endpoint.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of this resource's schema."},
            "kind": {"type": "string", "description": "The kind of this object: always MiniSGLModel."},
            "metadata": {"type": "object"},
            "spec": spec | {"description": "What is asked for."},
            "status": status | {"description": "What is seen; written by the operator."},
        },
        "x-kubernetes-validations": list(NAME_RULES),
    }


def _columns() -> list[Schema]:
    ready = '.status.conditions[?(@.type=="Ready")]'
    at_a_glance = [
        ("Ready", "string", f"{ready}.status", "Whether every wanted replica serves."),
        ("Replicas", "string", ".status.available", "Ready and wanted replicas."),
        ("Reason", "string", f"{ready}.reason", "Why it is ready, or not."),
        ("Progress", "string", ".status.progress", "How far the slowest of the starting pods is."),
        ("Model", "string", ".spec.model.source", "Where the model lies."),
        ("URL", "string", ".status.url", "Base URL for OpenAI clients."),
        ("Age", "date", ".metadata.creationTimestamp", "Time since creation."),
    ]
    wide = [
        ("Device", "string", ".spec.device.type", "What it runs on."),
        ("Backend", "string", ".status.backend", "Attention kernels in use."),
        ("TP", "integer", ".status.engine.tensorParallelSize", "Devices per replica."),
        ("DType", "string", ".status.engine.dtype", "Number format in use."),
        ("Context", "integer", ".status.engine.contextLength", "Longest prompt plus answer, in tokens."),
        ("KV-Tokens", "integer", ".status.engine.kvCache.tokens", "Tokens the KV cache of one replica holds."),
        ("Revision", "string", ".status.engine.modelRevision", "Commit or fingerprint of the model that is served."),
        ("Image", "string", ".status.launched.image", "Image that serves."),
        ("Message", "string", f"{ready}.message", "What is seen, and what to do next."),
    ]
    return [
        {"name": name, "type": kind, "jsonPath": path, "description": text, **({"priority": 1} if is_wide else {})}
        for is_wide, columns in ((False, at_a_glance), (True, wide))
        for name, kind, path, text in columns
    ]


def structural(schema: Schema, definitions: Schema | None = None) -> Schema:
    """Turn pydantic's JSON schema of one model into a structural schema."""
    definitions = schema.get("$defs", {}) if definitions is None else definitions
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[-1]]
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return structural(target | beside, definitions)
    if INT_OR_STRING in schema:
        return {key: schema[key] for key in (*KEPT, "anyOf", INT_OR_STRING) if key in schema and key != "default"}
    branches = [branch for branch in schema.get("anyOf", ()) if branch.get("type") != "null"]
    if branches:
        (branch,) = branches
        beside = {key: value for key, value in schema.items() if key != "anyOf"}
        return structural(branch | beside, definitions)
    result = {key: schema[key] for key in KEPT if key in schema and not (key == "default" and schema[key] is None)}
    if "const" in schema:
        result["enum"] = [schema["const"]]
    if schema.get("type") == "integer":
        result["format"] = "int64"
    if schema.get("type") == "boolean":
        # Absence says the same, and a stored default would outlive the release that wrote it.
        result.pop("default", None)
    if "properties" in schema:
        result["properties"] = {name: structural(prop, definitions) for name, prop in schema["properties"].items()}
        if schema.get("default") is not None:
            # An empty parent default suffices: the API server fills in the fields' own defaults.
            result["default"] = {}
    elif values := _values(schema):
        result["additionalProperties"] = structural(values, definitions)
    if "items" in schema:
        result["items"] = structural(schema["items"], definitions)
    # Empty lists and maps are what absence means anyway: do not store them in every object.
    if result.get("default") in ([], {}) and not _has_defaults(result):
        del result["default"]
    return result


def _values(schema: Schema) -> Schema | None:
    """The schema of a map's values. A structural schema has no word for the shape of keys; `api` checks them."""
    found = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
    return next((each for each in found if isinstance(each, dict)), None)


def _has_defaults(schema: Schema) -> bool:
    return any("default" in prop for prop in schema.get("properties", {}).values())


def _without_defaults(schema: Schema) -> None:
    """Status is written whole by the operator; defaults would only add fields that it did not write."""
    schema.pop("default", None)
    for prop in schema.get("properties", {}).values():
        _without_defaults(prop)
    if "items" in schema:
        _without_defaults(schema["items"])
