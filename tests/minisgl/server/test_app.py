"""The table of routes: each has chosen who may use it, and is answered as it chose. No process is started."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from minisgl.args import LaunchArgs
from minisgl.info import ServerInfo
from minisgl.metrics import Metrics
from minisgl.process import Heartbeats, Open
from minisgl.server.app import ROUTES, Auth, Route, build_app
from minisgl.server.front import Front
from minisgl.server.health import Health
from minisgl.server.requests import RequestTable
from support.fake_scheduler import facts

KEY = "sk-right"


@pytest.fixture
def app(tmp_path: Path) -> Any:
    """The application of a server that runs; nobody reads what it sends to the other processes."""
    (tmp_path / "keys").write_text(KEY)
    args = LaunchArgs(model_path="org/name", served_model_name="tiny", api_key_file=str(tmp_path / "keys"))
    heartbeats, metrics = Heartbeats(tmp_path, 1), Metrics("tiny")
    table = RequestTable(4, metrics, lambda message: None, lambda message: None)
    front = Front(args, Health(heartbeats, ("frontend",), 60), metrics, table, created=0)
    heartbeats.beat(0)
    front.learn(Open(facts(4).model_dump(mode="json"), 258, {}))
    front.health.state = "ready"
    return build_app(front)


def ask(app: Any, route: Route, **headers: str) -> httpx.Response:
    """One request with an empty body, past all processes."""

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            return await client.request(route.method, route.path.replace("{name:path}", "tiny"), headers=headers)

    return asyncio.run(send())


def test_the_application_serves_the_table_and_nothing_else(app: Any) -> None:
    served = {(method, route.path) for route in app._app.routes for method in route.methods}
    assert all(isinstance(route, APIRoute) for route in app._app.routes)
    assert served == {(route.method, route.path) for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_a_route_asks_for_a_key_exactly_if_it_says_so(app: Any, route: Route) -> None:
    for headers in ({}, {"Authorization": "Bearer sk-wrong"}, {"Authorization": f"Basic {KEY}"}):
        answer = ask(app, route, **headers)
        assert (answer.status_code == 401) is (route.auth is Auth.KEY)
        if route.auth is Auth.KEY:
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert answer.json()["error"]["type"] == "invalid_request_error"
    answer = ask(app, route, Authorization=f"Bearer {KEY}")
    assert answer.status_code == (400 if route.method == "POST" else 200)  # the body is empty


def test_what_computes_or_tells_of_the_model_is_not_open() -> None:
    for route in ROUTES:
        needs_key = route.path.startswith("/v1/") or route.path == "/server_info"
        assert (route.auth is Auth.KEY) is needs_key, route.path


def test_refusals_are_counted(app: Any) -> None:
    ask(app, ROUTES[0])
    text = ask(app, next(route for route in ROUTES if route.path == "/metrics")).text
    assert 'endpoint="/v1/chat/completions",model_name="tiny",status="401"} 1.0' in text


def test_the_servers_facts_hold_its_launch_arguments_but_no_key(app: Any) -> None:
    route = next(route for route in ROUTES if route.path == "/server_info")
    answer = ask(app, route, Authorization=f"Bearer {KEY}")
    told = ServerInfo.model_validate_json(answer.content)
    assert LaunchArgs.model_validate(told.launch_args).served_model_name == "tiny"
    assert KEY not in answer.text


def test_the_description_names_the_fields_of_a_request(app: Any) -> None:
    route = next(route for route in ROUTES if route.path == "/openapi.json")
    paths = ask(app, route).json()["paths"]
    assert {route.path.replace(":path", "") for route in ROUTES} >= set(paths)
    body = paths["/v1/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"prompt", "logit_bias", "priority"} <= set(body["properties"])
