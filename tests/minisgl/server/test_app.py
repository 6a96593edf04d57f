"""The table of routes: each has chosen who may use it, and is answered as it chose. No process is started."""

from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute

from minisgl.args import LaunchArgs
from minisgl.info import ServerInfo
from minisgl.server.app import ROUTES, Auth, Route
from support.front import FrontEnd

KEY = "sk-right"


@pytest.fixture
def front_end(tmp_path: Path) -> FrontEnd:
    (tmp_path / "keys").write_text(KEY)
    return FrontEnd(tmp_path, api_key_file=str(tmp_path / "keys"))


def ask(front_end: FrontEnd, route: Route, **headers: str) -> httpx.Response:
    """A request without a body."""
    return front_end.ask(route.method, route.path.replace("{name:path}", "tiny"), **headers)


def test_the_application_serves_the_table_and_nothing_else(front_end: FrontEnd) -> None:
    served = {(method, route.path) for route in front_end.app._app.routes for method in route.methods}
    assert all(isinstance(route, APIRoute) for route in front_end.app._app.routes)
    assert served == {(route.method, route.path) for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_a_route_asks_for_a_key_exactly_if_it_says_so(front_end: FrontEnd, route: Route) -> None:
    for headers in ({}, {"Authorization": "Bearer sk-wrong"}, {"Authorization": f"Basic {KEY}"}):
        answer = ask(front_end, route, **headers)
        assert (answer.status_code == 401) is (route.auth is Auth.KEY)
        if route.auth is Auth.KEY:
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert answer.json()["error"]["type"] == "invalid_request_error"
    answer = ask(front_end, route, Authorization=f"Bearer {KEY}")
    assert answer.status_code == (400 if route.body else 200)  # the body is empty


def test_what_computes_changes_or_tells_of_the_model_is_not_open() -> None:
    is_open = {"/", "/livez", "/readyz", "/health", "/startupz", "/metrics", "/version", "/openapi.json", "/docs"}
    assert {route.path for route in ROUTES if route.auth is Auth.OPEN} == is_open
    assert {route.method for route in ROUTES if route.auth is Auth.OPEN} == {"GET"}


def test_refusals_are_counted(front_end: FrontEnd) -> None:
    ask(front_end, ROUTES[0])
    text = ask(front_end, next(route for route in ROUTES if route.path == "/metrics")).text
    assert 'endpoint="/v1/chat/completions",model_name="tiny",status="401"} 1.0' in text


def test_the_servers_facts_hold_its_launch_arguments_but_no_key(front_end: FrontEnd) -> None:
    route = next(route for route in ROUTES if route.path == "/server_info")
    answer = ask(front_end, route, Authorization=f"Bearer {KEY}")
    told = ServerInfo.model_validate_json(answer.content)
    assert LaunchArgs.model_validate(told.launch_args).served_model_name == "tiny"
    assert KEY not in answer.text


def test_the_description_names_the_fields_of_a_request(front_end: FrontEnd) -> None:
    route = next(route for route in ROUTES if route.path == "/openapi.json")
    paths = ask(front_end, route).json()["paths"]
    assert {route.path.replace(":path", "") for route in ROUTES} >= set(paths)
    body = paths["/v1/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/CompletionRequest"}
    fields = ask(front_end, route).json()["components"]["schemas"]["CompletionRequest"]["properties"]
    assert {"prompt", "logit_bias", "priority"} <= set(fields)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_another_method_is_told_which_is_allowed(front_end: FrontEnd, route: Route) -> None:
    path = route.path.replace("{name:path}", "tiny")
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} - {route.method}:
        answer = front_end.ask(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, route.method)
        assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == ("method_not_allowed", None)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/v1", "/v2/models", "/docs/x", "/v1/completions/", "/%00", "/generate/../generatex"])
def test_an_unknown_route_is_told(front_end: FrontEnd, method: str, path: str) -> None:
    answer = front_end.ask(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("route", [route for route in ROUTES if route.body], ids=lambda route: route.path)
@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"])
def test_a_body_of_another_type_is_refused(front_end: FrontEnd, route: Route, kind: str) -> None:
    answer = front_end.ask("POST", route.path, {}, **{"Content-Type": kind, "Authorization": f"Bearer {KEY}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert answer.headers["content-type"] == "application/json"
