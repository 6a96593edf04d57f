"""openapi.json out of the table of routes: bodies, answers, every status that may come. Pure.

Not FastAPI's own: the routes read their bodies themselves (`body.py` says why), so FastAPI sees none of this.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Literal, Protocol

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from minisgl import __version__
from minisgl.server.shapes import ErrorAnswer

Content = dict[str, type[BaseModel] | tuple[type[BaseModel], ...] | None]  # media type -> shape; None: some text
JSON, EVENTS = "application/json", "text/event-stream"
NAMED = {"X-Request-Id": {"schema": {"type": "string"}, "description": "The client's own, or one made here."}}
LATER = {"Retry-After": {"schema": {"type": "string"}, "description": "Seconds."}}
BODY_STATUSES = (400, 408, 413, 415)  # of a body that does not come, or is none


class Described(Protocol):
    """What of a route is told."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def body(self) -> type[BaseModel] | None: ...
    @property
    def answers(self) -> Content: ...
    @property
    def statuses(self) -> tuple[int, ...]: ...
    @property
    def needs_key(self) -> bool: ...


def describe(routes: Iterable[Described], *, has_keys: bool) -> dict[str, Any]:
    """The document; `has_keys`: whether this server asks for one."""
    routes = list(routes)
    models: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = [(ErrorAnswer, "serialization")]
    for route in routes:
        models += [(route.body, "validation")] if route.body else []
        models += [(shape, "serialization") for shape in _shapes(route.answers)]
    refs, schemas = models_json_schema(models, ref_template="#/components/schemas/{model}")
    components: dict[str, Any] = {"schemas": schemas.get("$defs", {})}
    if has_keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    paths: dict[str, Any] = {}
    for route in routes:
        path = route.path.replace(":path", "")
        told = _operation(route, refs)
        if has_keys and route.needs_key:
            told["security"] = [{"key": []}]
            told["responses"]["401"] = _error(401)
        paths.setdefault(path, {})[route.method.lower()] = told
    info = {"title": "MiniSGL", "version": __version__}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": components}


def _operation(route: Described, refs: Any) -> dict[str, Any]:
    statuses = {*route.statuses, *(BODY_STATUSES if route.body else ())}
    responses = {str(status): _error(status) for status in sorted(statuses)}
    responses["200"] = {"description": "OK", "headers": NAMED, "content": _content(route.answers, refs)}
    told: dict[str, Any] = {
        "operationId": f"{route.method.lower()} {route.path}",
        "summary": route.summary,
        "responses": responses,
    }
    if "{" in route.path:
        name = route.path.partition("{")[2].partition(":")[0]
        told["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        ]
    if route.body:
        told["requestBody"] = {"required": True, "content": {JSON: {"schema": refs[route.body, "validation"]}}}
    return told


def _content(answers: Content, refs: Any) -> dict[str, Any]:
    content = {}
    for media, shape in answers.items():
        if shape is None:
            schema: Any = {"type": "string"}
        elif isinstance(shape, tuple):  # one, or a list of them
            one = refs[shape[0], "serialization"]
            schema = {"anyOf": [one, {"type": "array", "items": one}]}
        else:
            schema = refs[shape, "serialization"]
        content[media] = {"schema": schema}
    return content


def _error(status: int) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{ErrorAnswer.__name__}"}
    headers = NAMED | (LATER if status == 503 else {})
    return {"description": HTTPStatus(status).phrase, "headers": headers, "content": {JSON: {"schema": schema}}}


def _shapes(answers: Content) -> Iterable[type[BaseModel]]:
    for shape in answers.values():
        if shape is not None:
            yield shape[0] if isinstance(shape, tuple) else shape
