"""A Kubernetes API over real HTTP, only as much as kopf needs to watch: discovery, list, watch. No writes.

`push` sends one line down every open watch of a resource, whole or broken, so that bad streams can be played.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter, defaultdict
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

# kopf waits for namespaces, events and definitions to be discovered, even if it never asks for them.
RESOURCES = {
    "/api/v1": {
        "namespaces": "Namespace",
        "events": "Event",
        "pods": "Pod",
        "services": "Service",
        "serviceaccounts": "ServiceAccount",
    },
    "/apis/apiextensions.k8s.io/v1": {"customresourcedefinitions": "CustomResourceDefinition"},
    "/apis/apps/v1": {"deployments": "Deployment"},
    "/apis/minisgl.io/v1alpha1": {"minisglmodels": "MiniSGLModel"},
}


class ApiServer:
    """Serves on a free port of loopback; `objects` is what a list returns.

    In a thread with a loop of its own: kopf, when it ends, waits for and cancels every task of its loop.
    """

    def __init__(self) -> None:
        self.objects: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.lists: Counter[str] = Counter()
        self.queries: dict[str, str] = {}
        self._streams: dict[str, list[web.StreamResponse]] = defaultdict(list)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        self.port = 0

    def __enter__(self) -> ApiServer:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        """Close the door, and end the watches that still sleep behind it."""
        await self._runner.cleanup()
        watches = asyncio.all_tasks() - {asyncio.current_task()}
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)

    def kubeconfig(self, folder: Path) -> Path:
        """A kubeconfig that leads here."""
        path = folder / "kubeconfig"
        named = {
            "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "x", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        }
        path.write_text(yaml.safe_dump({"current-context": "x", **named}))
        return path

    def num_watches(self, plural: str) -> int:
        """How many watches of the resource are open."""
        return len(self._streams[plural])

    def push(self, plural: str, line: bytes) -> None:
        """Send one raw line to every watch of the resource."""

        async def send() -> None:
            for stream in self._streams[plural]:
                await stream.write(line + b"\n")

        self._run(send())

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/")
        for prefix, kinds in RESOURCES.items():
            if path == prefix:
                return web.json_response({"kind": "APIResourceList", "resources": _resources(kinds)})
            plural = path.removeprefix(prefix + "/").rsplit("/", 1)[-1]
            if path.startswith(prefix + "/") and plural in kinds:
                self.queries[plural] = request.query_string
                if "watch" in request.query:
                    return await self._watch(request, plural)
                return await self._list(plural, kinds[plural], prefix.removeprefix("/apis/").removeprefix("/api/"))
        groups = [{"name": name, **_versions(name, version)} for name, version in _groups()]
        roots: dict[str, Any] = {"/api": {"versions": ["v1"]}, "/apis": {"groups": groups}}
        roots |= {f"/apis/{name}": {"name": name, **_versions(name, version)} for name, version in _groups()}
        return web.json_response(roots[path]) if path in roots else web.json_response({"message": "no"}, status=404)

    async def _list(self, plural: str, kind: str, version: str) -> web.Response:
        self.lists[plural] += 1
        items = self.objects[plural]
        found = {"kind": f"{kind}List", "apiVersion": version, "metadata": {"resourceVersion": "1"}, "items": items}
        return web.json_response(found)

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        self._streams[plural].append(stream)
        try:
            await asyncio.sleep(3600)
        finally:
            self._streams[plural].remove(stream)
        return stream


def an_event(kind: str, plural: str, name: str, **labels: str) -> bytes:
    """One watch line."""
    meta = {"name": name, "namespace": "ns", "uid": f"{plural}-{name}", "resourceVersion": "5", "labels": labels}
    return json.dumps({"type": kind, "object": {"metadata": meta}}).encode()


def _groups() -> list[tuple[str, str]]:
    return [(prefix.split("/")[2], prefix.split("/")[3]) for prefix in RESOURCES if prefix.startswith("/apis/")]


def _versions(name: str, version: str) -> dict[str, Any]:
    entry = {"groupVersion": f"{name}/{version}", "version": version}
    return {"versions": [entry], "preferredVersion": entry}


def _resources(kinds: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "name": plural,
            "kind": kind,
            "singularName": kind.lower(),
            "namespaced": plural not in ("namespaces", "customresourcedefinitions"),
            "verbs": ["get", "list", "watch", "patch"],
        }
        for plural, kind in kinds.items()
    ]
