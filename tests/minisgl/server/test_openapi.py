"""What openapi.json says is what the server does: schemathesis asks a real one, with a real engine, whatever the
description allows and forbids, and holds every answer against it with all of its checks.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from minisgl.server.app import ROUTES
from minisgl.server.description import describe
from support.server import TINY, Server, running
from support.words import save_dummy

pytestmark = pytest.mark.cpu

EXAMPLES = int(os.environ.get("MINISGL_EXAMPLES", "12"))  # of each route
# What no schema can say: how fields go together, what the model has, what its template takes.
SEMANTIC = {"unsupported_parameter", "context_length_exceeded", "invalid_prompt", "model_not_found"}
TOGETHER = {
    "best_of",
    "min_tokens",
    "top_logprobs",
    "prompt",
    "n",
    "text",
    "input_ids",
    "messages",
    "rid",
    "request_id",
    "logit_bias",
    "tokens",
    "tools",
    "tool_choice",
    "response_format",
    "structured_outputs",
    "sampling_params",
    "body",
}
described = schemathesis.openapi.from_dict(describe(ROUTES, has_keys=False))
# A valid body may still be refused, but only for what no schema can say.
described.config.checks.positive_data_acceptance.expected_statuses += ["400"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = ("--max-seq-len-override=96", "--max-running-requests=8")  # short answers
    with running(save_dummy(tmp_path_factory.mktemp("model")), *TINY, *limits, module="minisgl") as server:
        yield server
        assert server.client.get("/livez").status_code == 200
        assert "Traceback" not in server.log


@described.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_described(case: Any, server: Server) -> None:
    response = case.call_and_validate(base_url=server.url, timeout=60)
    if response.status_code == 400 and case.meta.generation.mode.is_positive:
        error = response.json()["error"]
        root = (error["param"] or "body").partition(".")[0]
        assert error["code"] in SEMANTIC or root in TOGETHER, error


KEY = "sk-right"
locked = schemathesis.openapi.from_dict(describe(ROUTES, has_keys=True))
locked.config.checks.positive_data_acceptance.expected_statuses += ["400"]


@pytest.fixture(scope="module")
def locked_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = save_dummy(tmp_path_factory.mktemp("model"))
    (folder / "keys").write_text(KEY)
    arguments = ("--max-seq-len-override=96", f"--api-key-file={folder / 'keys'}")
    with running(folder, *TINY, *arguments, module="minisgl") as server:
        yield server


@locked.parametrize()
@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_with_keys_too(case: Any, locked_server: Server) -> None:
    case.call_and_validate(base_url=locked_server.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60)


def test_the_description_names_every_route_and_the_page_shows_them(server: Server) -> None:
    paths = server.client.get("/openapi.json").json()["paths"]
    page = server.client.get("/docs").text
    for route in ROUTES:
        path = route.path.replace(":path", "")
        assert paths[path][route.method.lower()]["summary"], path
        assert f"{route.method} {path}" in page
        for field in route.body.model_fields if route.body else ():
            assert f"<code>{field}</code>" in page
    assert "<script" not in page
