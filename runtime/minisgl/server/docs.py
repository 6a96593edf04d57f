"""GET /docs: openapi.json for people, as one page of plain HTML: no script, nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
code, h2 { font-family: ui-monospace, monospace }
h2 { font-size: 1.05rem; margin: 2rem 0 .3rem }
table { border-collapse: collapse; width: 100% }
td { border-top: 1px solid #8884; padding: .2rem .6rem; vertical-align: top }
td:first-child { white-space: nowrap }
summary { cursor: pointer }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


async def docs(request: Request) -> Response:
    """This page."""
    page = "".join(render(request.app.state.description))
    return Response(page, headers={"Content-Security-Policy": POLICY}, media_type="text/html")


def render(document: dict[str, Any]) -> Iterator[str]:
    """The page, piece by piece."""
    info, schemas = document["info"], document["components"]["schemas"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
    yield f"<h1>{title}</h1><p>The same for programs: "
    yield '<a href="openapi.json"><code>openapi.json</code></a>. Other fields than those named are ignored.</p>'
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield f"<h2>{method.upper()} {escape(path)}</h2><p>{escape(operation['summary'])}</p>"
            if body := operation.get("requestBody"):
                yield "<details><summary>body</summary>"
                yield from _fields(body["content"]["application/json"]["schema"], schemas)
                yield "</details>"
            for status, response in operation["responses"].items():
                kinds = ", ".join(response["content"])
                yield f"<details><summary>{status} {escape(response['description'])} <code>{kinds}</code></summary>"
                yield from _fields(next(iter(response["content"].values()))["schema"], schemas)
                yield "</details>"


def _fields(schema: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    """A table of an object's fields; those of objects in it follow in their own words."""
    shape = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if "properties" not in shape:
        yield f"<p><code>{escape(kind_of(shape))}</code></p>"
        return
    yield f"<p>{escape(shape.get('description', ''))}</p><table>"
    for name, field in shape["properties"].items():
        star = " (required)" if name in shape.get("required", ()) else ""
        yield f"<tr><td><code>{escape(name)}</code>{star}<td><code>{escape(kind_of(field))}</code>"
    yield "</table>"


def kind_of(schema: dict[str, Any]) -> str:
    """A type and its bounds in one line."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " | ".join(kind_of(option) for option in schema["anyOf"] if option.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return " | ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"[{kind_of(schema.get('items', {}))}]"
    bounds = [f"{sign}{schema[key]}" for key, sign in (("minimum", "≥ "), ("maximum", "≤ ")) if key in schema]
    return " ".join([str(schema.get("type", "any")), *bounds])
