"""A way to the API server on which anything can go wrong, by rule: what the operator reaches instead of the server.

`rule(call)` says what happens to a request; `hears(plural, line)` whether a line of a watch gets through.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

WRITES = {"POST", "PUT", "PATCH", "DELETE"}
END = b""


@dataclass
class Call:
    """One request, and the code of its answer once there is one."""

    method: str
    path: str
    is_watch: bool
    number: int | None  # counts writes about models from 1 on; the Lease's own are none
    code: int = 0
    at: float = field(default_factory=time.monotonic)

    @property
    def resource(self) -> str:
        """`minisglmodels/status`, `services`, ..."""
        parts = self.path.split("/")
        after = parts[parts.index("namespaces") + 2 :] if "namespaces" in parts else parts[-1:]
        return "/".join(after[:1] + after[2:])


@dataclass(frozen=True)
class Fault:
    """What happens to a request. The first that is set counts, in this order."""

    before: Callable[[], object] | None = None  # done instead of passing it on; no answer comes
    resets: bool = False
    hangs: bool = False
    status: int = 0
    body: bytes = b'{"kind":"Status","message":"injected"}'
    headers: dict[str, str] = field(default_factory=dict)
    after: Callable[[], object] | None = None  # done when it has taken effect; no answer comes


Rule = Callable[[Call], Fault | None]


class Proxy:
    """Listens on a free port of loopback, in a thread with a loop of its own."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        self._session: aiohttp.ClientSession | None = None
        self._streams: list[tuple[str, web.StreamResponse, asyncio.Event]] = []
        self._num_writes = 0
        self.calls: list[Call] = []
        self.rule: Rule = lambda _: None
        self.hears: Callable[[str, bytes], bool] = lambda *_: True
        self.url = ""

    def start(self) -> None:
        self._thread.start()
        self._run(self._start())

    def stop(self) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def writes(self) -> list[Call]:
        """What was written about models, in order, answered or not."""
        return [call for call in self.calls if call.number is not None]

    def forget(self) -> None:
        """Count from here."""
        self.calls.clear()
        self._num_writes = 0

    def break_watches(self, plural: str, line: bytes = END) -> None:
        """End every watch of a resource, after one last line if it is given."""

        async def run() -> None:
            for resource, stream, ends in list(self._streams):
                if resource == plural:
                    if line:
                        await stream.write(line)
                    ends.set()

        self._run(run())

    def num_watches(self, plural: str) -> int:
        return sum(resource == plural for resource, *_ in self._streams)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False, limit=0))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        for _, _, ends in self._streams:
            ends.set()
        await self._runner.cleanup()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        assert self._session is not None
        await self._session.close()
        await asyncio.sleep(0.1)  # transports are closed by the loop, one turn later

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        about_models = request.method in WRITES and "/leases" not in request.path
        self._num_writes += about_models
        is_watch = request.query.get("watch") in ("1", "true")
        call = Call(request.method, request.path, is_watch, self._num_writes if about_models else None)
        self.calls.append(call)
        fault = self.rule(call) or Fault()
        if fault.before:
            fault.before()
            return _gone(request)
        if fault.resets:
            return _gone(request)
        if fault.hangs:
            await asyncio.sleep(3600)
        if fault.status:
            call.code = fault.status
            headers = {"Content-Type": "application/json", **fault.headers}
            return web.Response(status=fault.status, body=fault.body, headers=headers)
        body = await request.read()
        assert self._session is not None
        skipped = {"host", "content-length", "transfer-encoding", "accept-encoding"}
        headers = {name: value for name, value in request.headers.items() if name.lower() not in skipped}
        url = self._server + request.path_qs
        limit = aiohttp.ClientTimeout(total=None)
        async with self._session.request(request.method, url, data=body or None, headers=headers, timeout=limit) as got:
            call.code = got.status
            if is_watch and got.status == 200:
                return await self._pass_on(request, call.resource, got)
            content = await got.read()
        if fault.after:
            fault.after()
            return _gone(request)
        kept = {name: got.headers[name] for name in ("Content-Type", "Retry-After") if name in got.headers}
        return web.Response(status=got.status, body=content, headers=kept)

    async def _pass_on(self, request: web.Request, plural: str, got: aiohttp.ClientResponse) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        ends = asyncio.Event()
        entry = (plural, stream, ends)
        ending = asyncio.ensure_future(ends.wait())
        try:
            await stream.prepare(request)
            self._streams.append(entry)
            while True:
                reading = asyncio.ensure_future(got.content.readline())
                await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    reading.cancel()
                    break
                if not (line := reading.result()):
                    break
                if self.hears(plural, line):
                    await stream.write(line)
        except ConnectionResetError:
            pass  # the operator was killed
        finally:
            ending.cancel()
            self._streams[:] = [each for each in self._streams if each is not entry]
        return stream


def _gone(request: web.Request) -> web.StreamResponse:
    """Cut the connection; what is returned reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
