"""The table of routes, and the translation of every exception into an OpenAI error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from minisgl import __version__
from minisgl.errors import MiniSGLError, RequestError
from minisgl.server import faults
from minisgl.server.door import Door
from minisgl.server.front import Front
from minisgl.server.generation import chat_completions, completions
from minisgl.server.openai import ChatRequest, CompletionRequest, Sampling

Endpoint = Callable[[Request], Awaitable[Response]]
STATUSES = ("200", "400", "404", "413", "415", "499", "500", "503")


def build_app(front: Front) -> ASGIApp:
    """The application of one front end."""
    app = FastAPI(
        title="MiniSGL",
        version=__version__,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={MiniSGLError: on_error, HTTPException: on_http_error, Exception: on_surprise},
    )
    app.state.front = front
    posts: dict[str, tuple[Endpoint, type[Sampling]]] = {
        "/v1/chat/completions": (chat_completions, ChatRequest),
        "/v1/completions": (completions, CompletionRequest),
    }
    for path, (post, kind) in posts.items():
        app.add_api_route(path, post, methods=["POST"], response_class=Response, openapi_extra=_body(kind))
    gets: dict[str, Endpoint] = {
        "/v1/models": models,
        "/livez": livez,
        "/readyz": readyz,
        "/health": readyz,
        "/startupz": startupz,
        "/metrics": metrics,
        "/server_info": server_info,
        "/version": version,
    }
    for path, get in gets.items():
        app.add_api_route(path, get, methods=["GET"], response_class=Response)
    app.add_api_route("/v1/models/{name:path}", model, methods=["GET"], response_class=Response)
    endpoints = frozenset({*posts, *gets})
    for label in (*endpoints, "/v1/models/{id}", "other"):
        for status in STATUSES:
            front.metrics.counter("minisgl_http_responses_total", label, status)
    return Door(app, front, endpoints)


def _body(kind: type[Sampling]) -> dict[str, Any]:
    """The body's schema for openapi.json; the routes read it themselves, because pydantic's JSON accepts NaN."""
    content = {"application/json": {"schema": kind.model_json_schema(ref_template="#/$defs/{model}")}}
    return {"requestBody": {"required": True, "content": content}}


async def on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, MiniSGLError)
    return faults.answer(error)


async def on_http_error(request: Request, error: Exception) -> Response:
    """No such route, or not this method."""
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path[:200]}"
    message = f"{what}: {error.detail}; see /openapi.json for what is served."
    return faults.answer(RequestError(message, status=error.status_code, code="not_found"))


async def on_surprise(request: Request, error: Exception) -> Response:
    return faults.answer(MiniSGLError("unexpected"))


def _front(request: Request) -> Front:
    front: Front = request.app.state.front
    return front


def _card(front: Front) -> dict[str, Any]:
    return {
        "id": front.model_name,
        "object": "model",
        "created": front.created,
        "owned_by": "minisgl",
        "root": front.args.model_path,
        "max_model_len": front.context_length or None,
    }


async def models(request: Request) -> Response:
    return faults.json_answer({"object": "list", "data": [_card(_front(request))]})


async def model(request: Request, name: str) -> Response:
    front = _front(request)
    front.check_model(name)
    return faults.json_answer(_card(front))


async def livez(request: Request) -> Response:
    status, content = _front(request).health.livez()
    return faults.json_answer(content, status)


async def readyz(request: Request) -> Response:
    status, content = _front(request).health.readyz()
    return faults.json_answer(content, status)


async def startupz(request: Request) -> Response:
    status, content = _front(request).health.startupz()
    return faults.json_answer(content, status)


async def server_info(request: Request) -> Response:
    front = _front(request)
    if front.health.info is None:
        front.check_open()
    assert front.health.info is not None
    return faults.json_answer(front.health.info.model_dump(mode="json"))


async def version(request: Request) -> Response:
    return faults.json_answer({"version": __version__})


async def metrics(request: Request) -> Response:
    front = _front(request)
    for process, is_up in front.health.up().items():
        front.metrics.gauge("minisgl_process_up", process).set(is_up)
    return Response(generate_latest(front.metrics.registry), media_type=CONTENT_TYPE_LATEST)
