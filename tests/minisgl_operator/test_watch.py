"""The real kopf over real HTTP: which model an event offers, and that no bad stream ends the operator."""

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from minisgl_operator import api, cluster, watch
from minisgl_operator.api import Key
from minisgl_operator.echoes import Echoes
from minisgl_operator.metrics import Metrics
from minisgl_operator.settings import Settings
from minisgl_operator.watch import Watches
from support.api_server import ApiServer, an_event

Check = Callable[[], bool]


class Recorder:
    """Stands for the queue. Knows which thread may touch it."""

    def __init__(self) -> None:
        self.home = threading.get_ident()
        self.keys: list[Key] = []
        self.urgent: set[Key] = set()

    def offer(self, key: Key, *, urgent: bool = False) -> None:
        assert threading.get_ident() == self.home, "kopf's thread reached into the queue"
        self.keys.append(key)
        self.urgent |= {key} if urgent else set()


class Operator:
    """One running set of watches."""

    def __init__(self, server: ApiServer, metrics: Metrics, port: int) -> None:
        self.server = server
        self.metrics = metrics
        self.port = port
        self.queue = Recorder()
        self.is_stale = False
        self.num_listed = 0
        self.echoes = Echoes()
        self.resync: Any = SimpleNamespace(is_stale=lambda: self.is_stale, age=lambda: 1.0, soon=self._listed)

    def _listed(self) -> None:
        assert threading.get_ident() == self.queue.home, "kopf's thread reached into the resync"
        self.num_listed += 1

    async def until(self, check: Check, seconds: float = 15) -> None:
        async with asyncio.timeout(seconds):
            while not check():  # noqa: ASYNC110 (what is awaited happens in other tasks, without a signal)
                await asyncio.sleep(0.02)

    async def watching(self) -> None:
        """Until models, pods and Deployments are watched."""
        await self.until(lambda: all(self.server.num_watches(each) for each in (api.PLURAL, "pods", "deployments")))

    @property
    def restarts(self) -> float:
        return self.metrics.registry.get_sample_value("minisgl_operator_watch_restarts_total") or 0

    async def probe(self) -> int:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/healthz") as answer:
            return answer.status


def play(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scene: Callable[[Operator], Awaitable[None]], **settings: str
) -> None:
    """Run the watches against a server while `scene` plays, then stop them as SIGTERM does."""
    monkeypatch.setattr(watch, "RESTART_SECONDS", 0.05)

    async def stage() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with ApiServer() as server:
            monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
            metrics = Metrics()
            operator = Operator(server, metrics, port)
            chosen = Settings.model_validate({"health_port": port, **settings})
            connection = await cluster.connect(chosen.namespaces, metrics)
            queue: Any = operator.queue
            operator.echoes = connection.echoes
            watches = Watches(chosen, connection, metrics, queue, operator.resync)
            running = asyncio.create_task(watches.run())
            try:
                await scene(operator)
            finally:
                watches.stop()
                await asyncio.wait_for(running, 20)
                await connection.close()

    asyncio.run(stage())


def test_events_of_models_and_of_their_children_offer_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(operator: Operator) -> None:
        await operator.watching()
        operator.server.push(api.PLURAL, an_event("ADDED", api.PLURAL, "a"))
        operator.server.push("pods", an_event("MODIFIED", "pods", "b-1-x", **{api.MODEL_LABEL: "b"}))
        operator.server.push("deployments", an_event("DELETED", "deployments", "c", **{api.MODEL_LABEL: "c"}))
        operator.server.push("pods", an_event("MODIFIED", "pods", "d-inspect-x", **{api.INSPECTS_LABEL: "d"}))
        await operator.until(lambda: len(set(operator.queue.keys)) == 4)
        assert set(operator.queue.keys) == {Key("ns", name) for name in "abcd"}
        assert operator.queue.urgent == {Key("ns", "a")}, "what a user changed comes first"

    play(tmp_path, monkeypatch, scene)


def test_the_echo_of_an_own_write_offers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(operator: Operator) -> None:
        await operator.watching()
        own, foreign = an_event("MODIFIED", api.PLURAL, "own"), an_event("MODIFIED", api.PLURAL, "foreign")
        operator.echoes.wrote(json.loads(own)["object"])
        operator.server.push(api.PLURAL, own)
        operator.server.push(api.PLURAL, foreign)
        await operator.until(lambda: Key("ns", "foreign") in operator.queue.keys)
        assert Key("ns", "own") not in operator.queue.keys

    play(tmp_path, monkeypatch, scene)


def test_children_are_narrowed_to_our_label_by_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(operator: Operator) -> None:
        await operator.watching()
        assert "labelSelector=minisgl.io" in operator.server.queries["deployments"]
        assert "labelSelector=app.kubernetes.io/managed-by%3Dminisgl" in operator.server.queries["pods"]
        assert "labelSelector" not in operator.server.queries[api.PLURAL]

    play(tmp_path, monkeypatch, scene)


BROKEN = {
    "an ERROR event 500": b'{"type": "ERROR", "object": {"code": 500, "message": "etcd is unhappy"}}',
    "a truncated line": b'{"type": "MODIFIED", "object": {"metada',
    "an ERROR event 410": b'{"type": "ERROR", "object": {"code": 410}}',
}


@pytest.mark.parametrize("line", BROKEN.values(), ids=BROKEN)
def test_a_broken_stream_leads_to_a_fresh_list_and_a_look_at_all_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    async def scene(operator: Operator) -> None:
        await operator.watching()
        model = {"metadata": {"name": "late", "namespace": "ns", "uid": "u", "resourceVersion": "2"}}
        operator.server.objects[api.PLURAL].append(model)
        operator.server.push(api.PLURAL, line)
        await operator.until(lambda: operator.num_listed > 0)
        assert operator.queue.keys == []

    play(tmp_path, monkeypatch, scene)


def test_work_that_is_under_way_survives_the_end_of_a_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(operator: Operator) -> None:
        await operator.watching()
        # As a worker's call in flight: begun after kopf, which ends what is younger than itself.
        work = asyncio.create_task(asyncio.sleep(3600))
        operator.server.push(api.PLURAL, BROKEN["an ERROR event 500"])
        await operator.until(lambda: operator.restarts == 1)
        await operator.watching()
        assert not work.done()
        work.cancel()

    play(tmp_path, monkeypatch, scene)


def test_the_probe_fails_when_nothing_could_be_listed_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(operator: Operator) -> None:
        await operator.watching()
        operator.is_stale = True
        assert await operator.probe() == 500

    play(tmp_path, monkeypatch, scene)


def test_the_probe_answers_while_all_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(operator: Operator) -> None:
        await operator.watching()
        assert await operator.probe() == 200

    play(tmp_path, monkeypatch, scene, watch_namespaces="ns")
