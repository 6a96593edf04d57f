"""The front end process: the HTTP server on the inherited socket, the supervisor's orders, warm-up and drain."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from minisgl import __version__
from minisgl.errors import StartError
from minisgl.messages import TO_FRONTEND
from minisgl.metrics import Metrics
from minisgl.process import Break, Drain, Open, Order, Progress, Supervisor, run_child
from minisgl.server.app import build_app
from minisgl.server.connection import Connection
from minisgl.server.control import generate_once
from minisgl.server.front import Front
from minisgl.server.health import Health
from minisgl.server.requests import RequestTable
from minisgl.sockets import Inbox, Outbox
from minisgl.termination import Reason

BEAT_SECONDS = 0.25  # the shortest watchdog is a second
WARM_UP_SECONDS = 600.0  # the first forward step of a large model compiles kernels
CLOSE_SECONDS = 1  # what connections get to send their last bytes when the server ends
# Longer than clients keep an unused connection (OpenAI's: 5 s; most proxies: 60 s), so that it is they who close it: a
# request that crosses our close on its way would be lost.
KEEP_ALIVE_SECONDS = 75

logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn without signal handlers: the supervisor decides."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Frontend:
    """One front end. Everything runs in its event loop; orders come in from the watching thread."""

    def __init__(self, supervisor: Supervisor) -> None:
        config = supervisor.config
        self._supervisor, self._args = supervisor, config.launch_args
        ipc = Path(config.ipc)
        args = self._args
        self._metrics = metrics = Metrics(args.served_model_name or args.model_path, args.metrics_compat)
        metrics.gauge("minisgl_build_info", __version__).set(1)
        for name in config.heartbeat_names:
            metrics.gauge("minisgl_process_up", name)
            if name.startswith("scheduler"):
                metrics.take_load(name, 0, 0, None)
        self._dropped = [metrics.counter("minisgl_dropped_messages_total", name) for name in config.heartbeat_names]
        scheduler = Outbox(ipc, "scheduler", unbounded=True)
        tokenizers = itertools.cycle(
            [Outbox(ipc, f"tokenizer-{index}", unbounded=True) for index in range(max(1, args.num_tokenizer))]
        )
        table = RequestTable(
            args.max_running_requests + args.max_queued_requests,
            metrics,
            lambda message: next(tokenizers).put(message),
            scheduler.put,
        )
        health = Health(supervisor.heartbeats, config.heartbeat_names, args.watchdog_timeout_seconds)
        self._front = Front(args, health, metrics, table, created=int(time.time()))
        self._inbox: Inbox[TO_FRONTEND] = Inbox(ipc, "frontend", TO_FRONTEND, supervisor.count_dropped)
        self._server = Server(
            uvicorn.Config(
                build_app(self._front),
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                date_header=False,
                backlog=2048,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=CLOSE_SECONDS,
            )
        )
        self._drained = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        self._inbox.listen(loop, self._front.table.receive)

        def pass_on(order: Order) -> None:
            loop.call_soon_threadsafe(self._obey, order)

        self._supervisor.listen(pass_on)
        self._start(self._beat())
        listen_fd = self._supervisor.config.listen_fd
        assert listen_fd is not None
        await self._server.serve([socket.socket(fileno=listen_fd)])

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[None]) -> None:
        """A task of ours that fails is the process's failure: half a server is worse than none."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            if isinstance(error, StartError):
                self._supervisor.fail(error.reason, str(error))
            logger.error("front end failed", exc_info=error)
            self._supervisor.fail(Reason.START_FAILED, f"{type(error).__name__}: {error}")

    def _obey(self, order: Order) -> None:
        match order:
            case Progress():
                self._front.health.enter(order)
                if order.phase == "weights":
                    self._metrics.take_load(order.process, order.done, order.total, order.eta_seconds)
            case Open():
                self._start(self._open(order))
            case Drain():
                self._start(self._drain())
            case Break():
                self._break(order.message)

    async def _open(self, order: Open) -> None:
        """Send one real request through the whole tree, then let clients in."""
        self._supervisor.phase("first-answer")
        front = self._front
        front.learn(order)
        try:
            async with asyncio.timeout(WARM_UP_SECONDS):
                await generate_once(front, 2)
        except TimeoutError:
            sentence = f"the first generation gave no answer within {WARM_UP_SECONDS:g} s"
            raise StartError(Reason.START_FAILED, sentence) from None
        assert front.health.info is not None
        seconds = {
            **order.startup_seconds,
            "first-answer": round(time.monotonic() - self._supervisor.config.started_at, 3),
        }
        front.health.info = front.health.info.model_copy(update={"startup_seconds": seconds})
        for phase, end in seconds.items():
            front.metrics.gauge("minisgl_startup_seconds", phase).set(end)
        front.health.state = "ready"
        self._supervisor.ready()

    async def _drain(self) -> None:
        """Unready at once; accept for the delay; give open requests their time; end."""
        front, args = self._front, self._args
        front.health.state = "draining"
        await asyncio.sleep(args.drain_delay_seconds)
        front.is_accepting = False
        self._close_unused()
        front.table.on_empty = self._drained.set
        if len(front.table):
            logger.info("drain open=%d seconds=%d", len(front.table), args.drain_timeout_seconds)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(args.drain_timeout_seconds):
                    await self._drained.wait()
        front.table.fail_all("The server is shutting down and this request took too long; send it again.")
        self._server.should_exit = True

    def _close_unused(self) -> None:
        """Connections without a request: a client would meet a refusal on one, and on a new one another replica."""
        for connection in tuple(self._server.server_state.connections):
            assert isinstance(connection, Connection)
            connection.retire()

    def _break(self, message: str) -> None:
        self._front.health.state = "failed"
        self._front.failure = message
        self._front.table.fail_all(message)
        self._server.should_exit = True

    async def _beat(self) -> None:
        """Beat, and tell as a metric what all processes have dropped so far."""
        told = [0] * len(self._dropped)
        while True:
            self._supervisor.beat()
            for slot, counter in enumerate(self._dropped):
                dropped = self._supervisor.heartbeats.dropped(slot)
                counter.inc(dropped - told[slot])
                told[slot] = dropped
            await asyncio.sleep(BEAT_SECONDS)


def main(supervisor: Supervisor) -> None:
    supervisor.phase("frontend")

    async def run() -> None:
        await Frontend(supervisor).run()

    uvloop.run(run())


if __name__ == "__main__":
    run_child(main)
