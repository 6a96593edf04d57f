"""What a pod answers to /startupz over real HTTP: read if it is what we understand, else nothing."""

import asyncio
import gzip
import json
import socket

import pytest
from aiohttp import web

from minisgl_operator import facts
from minisgl_operator.objects import Object
from support.cluster_objects import loading_info, start_info

POD: Object = {"metadata": {"name": "p"}, "status": {"podIP": "127.0.0.1"}}
STARTED = start_info().model_dump_json(by_alias=True).encode()


def ask(monkeypatch: pytest.MonkeyPatch, body: bytes, status: int = 200, **headers: str) -> object:
    """What becomes of a server's answer."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status, headers={"Content-Type": "application/json", **headers})

    async def scene() -> object:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        monkeypatch.setattr(facts, "PORT", port)
        app = web.Application()
        app.router.add_get("/startupz", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            return await facts.ask_server(POD)
        finally:
            await runner.cleanup()

    return asyncio.run(scene())


def test_a_server_that_has_started_and_one_that_loads_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(monkeypatch, STARTED) == start_info()
    loading = loading_info().model_dump_json(by_alias=True).encode()
    assert ask(monkeypatch, loading, status=503) == loading_info()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        STARTED + b" " * facts.MAX_BYTES,
        b'{"status": "starting", "startupSeconds": {"weights": NaN}}',
        b'{"status": "starting", "startupSeconds": {"weights": 1e999}}',
        b'{"status": "starting", "place": {"phase": "weights", "seconds": 1, "etaSeconds": Infinity}}',
        json.dumps({"status": "starting", "place": {"phase": "weights", "seconds": 1, "done": 10**30}}).encode(),
    ],
)
def test_what_is_no_answer_of_ours_is_none(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    assert ask(monkeypatch, body) is None


def test_an_answer_is_never_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = gzip.compress(STARTED + b" " * (16 * facts.MAX_BYTES))
    assert len(packed) < facts.MAX_BYTES
    assert ask(monkeypatch, packed, **{"Content-Encoding": "gzip"}) is None


def test_an_error_and_a_redirection_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(monkeypatch, STARTED, status=500) is None
    assert ask(monkeypatch, b"", status=302, Location="http://127.0.0.1:1/") is None


def test_a_pod_that_cannot_be_reached_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "PORT", 1)
    assert asyncio.run(facts.ask_server(POD)) is None
