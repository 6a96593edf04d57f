"""One API server for the whole session; a namespace, a proxy and operators for each test."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from control_plane.server import ControlPlane
from control_plane.stage import Stage
from minisgl_operator.build.launch import PORT
from support.cluster_objects import start_info


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The API server."""
    running = ControlPlane(tmp_path_factory.mktemp("control-plane"))
    try:
        running.start()
        yield running
    finally:
        running.stop()


class Facts(http.server.BaseHTTPRequestHandler):
    """What every pod answers."""

    def do_GET(self) -> None:
        body = start_info().model_dump_json(by_alias=True).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def pod_ip() -> Iterator[str]:
    """Where every pod of these tests answers: an address of loopback that other runs on this machine do not have."""
    address = f"127.{os.getpid() % 250 + 1}.{os.getpid() // 250 % 250 + 1}.7"
    with http.server.ThreadingHTTPServer((address, PORT), Facts) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield address
        server.shutdown()
        thread.join()


@pytest.fixture
def new_stage(plane: ControlPlane, pod_ip: str, tmp_path: Path) -> Iterator[Callable[[], Stage]]:
    """Makes stages that are closed after the test."""
    opened: list[Stage] = []

    def make() -> Stage:
        stage = Stage(plane, tmp_path, pod_ip)
        opened.append(stage)
        stage.open()
        return stage

    yield make
    for stage in opened:
        stage.close()


@pytest.fixture
def stage(new_stage: Callable[[], Stage]) -> Stage:
    """One."""
    return new_stage()
