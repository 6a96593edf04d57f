"""The table of routes, who may use which, and the translation of every exception into an OpenAI error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from minisgl import __version__
from minisgl.errors import MiniSGLError, RequestError
from minisgl.server import faults
from minisgl.server.control import AbortRequest, abort_request, flush_cache, health_generate
from minisgl.server.door import Door
from minisgl.server.front import Front
from minisgl.server.generate import GenerateRequest, generate
from minisgl.server.generation import chat_completions, completions
from minisgl.server.keys import Keys
from minisgl.server.openai import Body, ChatRequest, CompletionRequest
from minisgl.server.page import page
from minisgl.server.words import DetokenizeRequest, TokenizeRequest, detokenize, tokenize

Endpoint = Callable[..., Awaitable[Response]]
STATUSES = ("200", "400", "401", "404", "405", "408", "409", "413", "415", "499", "500", "503")


class Auth(Enum):
    """What a client must bring when the server has keys."""

    OPEN = auto()  # probes, metrics, the API's description, the page: nothing of the model, no compute
    KEY = auto()


@dataclass(frozen=True)
class Route:
    """One line of the table. `label` is its name in the metrics: never a client's text."""

    method: str
    path: str
    endpoint: Endpoint
    auth: Auth
    body: type[Body] | None = None
    label: str = ""


def build_app(front: Front) -> ASGIApp:
    """The application of one front end. Raises StartError if it shall have keys and they cannot be read."""
    app = FastAPI(
        title="MiniSGL",
        version=__version__,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        openapi_url=None,  # served by the table below, as all that is served
        redirect_slashes=False,
        exception_handlers={MiniSGLError: on_error, HTTPException: on_http_error, Exception: on_surprise},
    )
    app.state.front = front
    checks = {Auth.OPEN: [], Auth.KEY: key_check(front.args.api_key_file)}
    for route in ROUTES:
        app.add_api_route(
            route.path,
            route.endpoint,
            methods=[route.method],
            dependencies=checks[route.auth],
            response_class=Response,
            openapi_extra=_body(route.body) if route.body else None,
        )
    for label in [*(route.label or route.path for route in ROUTES), "other"]:
        for status in STATUSES:
            front.metrics.counter("minisgl_http_responses_total", label, status)
    return Door(app, front, frozenset(route.path for route in ROUTES if not route.label))


def key_check(path: str | None) -> list[Any]:
    """What runs before an endpoint that needs a key; nothing without `--api-key-file`. No byte of the body is read."""
    if path is None:
        return []
    keys = Keys(Path(path).expanduser())

    async def check(request: Request) -> None:
        keys.check(request.headers.get("authorization"))

    return [Depends(check)]


def _body(kind: type[Body]) -> dict[str, Any]:
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
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    answer = faults.answer(RequestError(message, status=error.status_code, code=code))
    answer.headers.update(error.headers or {})  # which methods are allowed
    return answer


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


async def description(request: Request) -> Response:
    return faults.json_answer(request.app.openapi())


# Everything that is served. What computes or tells about the model needs a key.
ROUTES = (
    Route("POST", "/v1/chat/completions", chat_completions, Auth.KEY, ChatRequest),
    Route("POST", "/v1/completions", completions, Auth.KEY, CompletionRequest),
    Route("POST", "/generate", generate, Auth.KEY, GenerateRequest),
    Route("POST", "/tokenize", tokenize, Auth.KEY, TokenizeRequest),
    Route("POST", "/detokenize", detokenize, Auth.KEY, DetokenizeRequest),
    Route("POST", "/abort_request", abort_request, Auth.KEY, AbortRequest),
    Route("POST", "/flush_cache", flush_cache, Auth.KEY),
    Route("POST", "/reset_prefix_cache", flush_cache, Auth.KEY),
    Route("GET", "/health_generate", health_generate, Auth.KEY),
    Route("GET", "/v1/models", models, Auth.KEY),
    Route("GET", "/v1/models/{name:path}", model, Auth.KEY, label="/v1/models/{id}"),
    Route("GET", "/server_info", server_info, Auth.KEY),
    Route("GET", "/get_server_info", server_info, Auth.KEY),
    Route("GET", "/", page, Auth.OPEN),
    Route("GET", "/livez", livez, Auth.OPEN),
    Route("GET", "/readyz", readyz, Auth.OPEN),
    Route("GET", "/health", readyz, Auth.OPEN),
    Route("GET", "/startupz", startupz, Auth.OPEN),
    Route("GET", "/metrics", metrics, Auth.OPEN),
    Route("GET", "/version", version, Auth.OPEN),
    Route("GET", "/openapi.json", description, Auth.OPEN),
)
