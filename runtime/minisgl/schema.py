"""What others read of the launch arguments: the CRD's `spec.runtime`, the charts' value schema, the docs' table.

Pure: dicts and text from `args`; who writes them into which file is the operator package's `generate`.
"""

from __future__ import annotations

from typing import Any

from pydantic.alias_generators import to_camel

from minisgl.args import CROSS_FIELD_RULES, LaunchArgs, flags
from minisgl.argv import spelling

KEPT = ("type", "enum", "minimum", "maximum", "minLength", "pattern")


def runtime_schema() -> dict[str, Any]:
    """The structural OpenAPI schema of `spec.runtime`: camelCase keys, no defaults.

    No defaults on purpose: a stored object must not freeze the default of the release that first saw it.
    """
    properties = LaunchArgs.model_json_schema(by_alias=True)["properties"]
    kept = {}
    for field, flag in flags().items():
        if not flag.cli_only:
            kept[to_camel(field)] = _structural(properties[to_camel(field)]) | {"description": flag.help}
    return {
        "type": "object",
        "description": "Launch arguments of the runtime, one key per flag of `python -m minisgl`.",
        "properties": kept,
        "x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in CROSS_FIELD_RULES],
    }


def values_schema() -> dict[str, Any]:
    """The same for a chart's values.schema.json: strict, without Kubernetes' own keywords.

    The cross-field rules are left to the API server, which has them as CEL.
    """
    schema = runtime_schema()
    del schema["x-kubernetes-validations"]
    return schema | {"additionalProperties": False}


def table() -> str:
    """The argument table of the docs, in Markdown."""
    rows = [
        "| flag | key in `spec.runtime` | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for field, flag in flags().items():
        info = LaunchArgs.model_fields[field]
        names = ", ".join(f"`{name}`" for name in (spelling(field), *flag.aliases))
        key = "" if flag.cli_only else f"`{to_camel(field)}`"
        default = "required" if info.is_required() else "" if info.default is None else f"`{info.default}`"
        meaning = flag.help.replace("|", "\\|")
        rows.append(f"| {names} | {key} | {default.replace('False', 'off')} | {meaning} |")
    return "\n".join(rows) + "\n"


def _structural(schema: dict[str, Any]) -> dict[str, Any]:
    """Drop what a structural schema may not hold: titles, defaults, the null branch of an optional field."""
    branch = next((kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"), schema)
    return {key: branch[key] for key in KEPT if key in branch}
