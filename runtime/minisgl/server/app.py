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
from minisgl.info import ServerInfo, StartInfo
from minisgl.server import faults, shapes
from minisgl.server.control import AbortRequest, abort_request, flush_cache, health_generate
from minisgl.server.description import EVENTS, JSON, Content, describe
from minisgl.server.docs import docs
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

    # Probes, metrics, the API's description, the page: no compute, no word of a client. What an engine is (its
    # architecture, its cache) is no secret: who watches servers needs it, and shall not hold a client's key for it.
    OPEN = auto()
    KEY = auto()


@dataclass(frozen=True)
class Route:
    """One line of the table. `label` is its name in the metrics: never a client's text."""

    method: str
    path: str
    endpoint: Endpoint
    auth: Auth
    answers: Content
    body: type[Body] | None = None
    statuses: tuple[int, ...] = ()  # beside 200, and what any body may meet
    label: str = ""

    @property
    def summary(self) -> str:
        return (self.endpoint.__doc__ or "").strip().partition("\n")[0]

    @property
    def needs_key(self) -> bool:
        return self.auth is Auth.KEY


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
    app.state.description = describe(ROUTES, has_keys=front.args.api_key_file is not None)
    checks = {Auth.OPEN: [], Auth.KEY: key_check(front.args.api_key_file)}
    for route in ROUTES:
        app.add_api_route(
            route.path,
            route.endpoint,
            methods=[route.method],
            dependencies=checks[route.auth],
            response_class=Response,
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
    """The served model, as a list."""
    return faults.json_answer({"object": "list", "data": [_card(_front(request))]})


async def model(request: Request, name: str) -> Response:
    """The served model, by its name."""
    front = _front(request)
    front.check_model(name)
    return faults.json_answer(_card(front))


async def livez(request: Request) -> Response:
    """Whether the processes live."""
    status, content = _front(request).health.livez()
    return faults.json_answer(content, status)


async def readyz(request: Request) -> Response:
    """Whether requests are answered."""
    status, content = _front(request).health.readyz()
    return faults.json_answer(content, status)


async def startupz(request: Request) -> Response:
    """How far the start is."""
    status, content = _front(request).health.startupz()
    return faults.json_answer(content, status)


async def server_info(request: Request) -> Response:
    """What was decided at the start."""
    front = _front(request)
    if front.health.info is None:
        front.check_open()
    assert front.health.info is not None
    return faults.json_answer(front.health.info.model_dump(mode="json"))


async def version(request: Request) -> Response:
    """The runtime's version."""
    return faults.json_answer({"version": __version__})


async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    front = _front(request)
    for process, is_up in front.health.up().items():
        front.metrics.gauge("minisgl_process_up", process).set(is_up)
    return Response(generate_latest(front.metrics.registry), media_type=CONTENT_TYPE_LATEST)


async def description(request: Request) -> Response:
    """This API, for programs."""
    return faults.json_answer(request.app.state.description)


COMPUTES = (404, 409, 500, 503)  # no such model, a name in use, a failure of this request, not now
TEXT, PAGE = "text/plain", "text/html"

# Everything that is served. What computes or tells about the model needs a key.
ROUTES = (
    Route(
        "POST",
        "/v1/chat/completions",
        chat_completions,
        Auth.KEY,
        {JSON: shapes.ChatCompletion, EVENTS: shapes.Event},
        ChatRequest,
        COMPUTES,
    ),
    Route(
        "POST",
        "/v1/completions",
        completions,
        Auth.KEY,
        {JSON: shapes.Completion, EVENTS: shapes.Event},
        CompletionRequest,
        COMPUTES,
    ),
    Route(
        "POST",
        "/generate",
        generate,
        Auth.KEY,
        {JSON: (shapes.Generated,), EVENTS: shapes.Event},
        GenerateRequest,
        COMPUTES,
    ),
    Route("POST", "/tokenize", tokenize, Auth.KEY, {JSON: shapes.Tokens}, TokenizeRequest, (404, 503)),
    Route("POST", "/detokenize", detokenize, Auth.KEY, {JSON: shapes.Detokenized}, DetokenizeRequest, (404, 503)),
    Route("POST", "/abort_request", abort_request, Auth.KEY, {JSON: shapes.Aborted}, AbortRequest),
    Route("POST", "/flush_cache", flush_cache, Auth.KEY, {JSON: shapes.Status}, statuses=(503,)),
    Route("POST", "/reset_prefix_cache", flush_cache, Auth.KEY, {JSON: shapes.Status}, statuses=(503,)),
    Route("GET", "/health_generate", health_generate, Auth.KEY, {JSON: shapes.Status}, statuses=(503,)),
    Route("GET", "/v1/models", models, Auth.KEY, {JSON: shapes.ModelList}),
    Route(
        "GET",
        "/v1/models/{name:path}",
        model,
        Auth.KEY,
        {JSON: shapes.ModelCard},
        statuses=(404,),
        label="/v1/models/{id}",
    ),
    Route("GET", "/server_info", server_info, Auth.KEY, {JSON: ServerInfo}, statuses=(503,)),
    Route("GET", "/get_server_info", server_info, Auth.KEY, {JSON: ServerInfo}, statuses=(503,)),
    Route("GET", "/", page, Auth.OPEN, {PAGE: None}),
    Route("GET", "/docs", docs, Auth.OPEN, {PAGE: None}),
    Route("GET", "/livez", livez, Auth.OPEN, {JSON: shapes.Status}, statuses=(503,)),
    Route("GET", "/readyz", readyz, Auth.OPEN, {JSON: shapes.Status}, statuses=(503,)),
    Route("GET", "/health", readyz, Auth.OPEN, {JSON: shapes.Status}, statuses=(503,)),
    Route("GET", "/startupz", startupz, Auth.OPEN, {JSON: StartInfo}, statuses=(503,)),
    Route("GET", "/metrics", metrics, Auth.OPEN, {TEXT: None}),
    Route("GET", "/version", version, Auth.OPEN, {JSON: shapes.Version}),
    Route("GET", "/openapi.json", description, Auth.OPEN, {JSON: shapes.Document}),
)
