"""`python -m minisgl_operator`: read settings, wire the parts together, run until told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import uuid
from collections.abc import Awaitable, Callable
from functools import partial

from prometheus_client import start_http_server

from minisgl import __version__
from minisgl_operator import cluster, log
from minisgl_operator.cluster import KubernetesCluster
from minisgl_operator.errors import NoCluster
from minisgl_operator.facts import ask_server
from minisgl_operator.lease import Lease
from minisgl_operator.metrics import Metrics
from minisgl_operator.queue import Queue
from minisgl_operator.reconcile import Reconciler
from minisgl_operator.resync import Resync
from minisgl_operator.settings import Settings, read
from minisgl_operator.watch import Watches

logger = logging.getLogger("minisgl_operator")

Act = Callable[[], Awaitable[None]]


async def serve(settings: Settings) -> None:
    """Run the operator. Returns after SIGTERM or SIGINT; raises if a part ends on its own.

    Without the Lease it watches and collects what is to do, so that it can take over at once; it only does not do it.
    """
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    metrics = Metrics()
    if settings.metrics_port:
        start_http_server(settings.metrics_port, registry=metrics.registry)
    connection = await cluster.connect(settings.namespaces, metrics)
    reconciler = Reconciler(connection, settings, metrics, ask_server)
    queue = Queue(reconciler.reconcile, metrics)
    resync = Resync(connection, queue, metrics, settings.resync_seconds, reconciler.is_settled, reconciler.known)
    watches = Watches(settings, connection, metrics, queue, resync)

    act = partial(queue.run, settings.workers)
    background = [
        asyncio.create_task(while_holder(act, settings, connection, metrics)),
        asyncio.create_task(resync.run()),
        asyncio.create_task(told.wait()),
    ]
    watching = asyncio.create_task(watch_after(resync.first_look, watches))
    try:
        await asyncio.wait([watching, *background], return_when=asyncio.FIRST_COMPLETED)
        for task in (watching, *background):
            if task.done():
                task.result()
    finally:
        watches.stop()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)  # the Lease is free from here on
        await asyncio.gather(watching, return_exceptions=True)  # kopf takes some seconds
        await connection.close()


async def watch_after(first_look: asyncio.Event, watches: Watches) -> None:
    """Watch when all models have been looked at once: kopf needs more than a second of CPU for a thousand objects.
    What changes meanwhile is found by the look that its listing asks for.
    """
    await first_look.wait()
    await watches.run()


async def while_holder(act: Act, settings: Settings, connection: KubernetesCluster, metrics: Metrics) -> None:
    """Act while the Lease is ours; without one, always."""
    if not settings.lease_namespace:
        metrics.is_holder.set(1)
        return await act()
    identity = settings.identity or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
    lease = Lease(connection, settings.lease_namespace, settings.lease_name, identity, metrics)
    connection.may_write = lease.is_held
    return await lease.run(act)


def main() -> int:
    """The process; returns its exit code."""
    settings = read(sys.argv[1:], os.environ)
    log.configure(settings.log_format)
    logger.info("start version=%s namespaces=%s", __version__, ",".join(settings.namespaces) or "all")
    try:
        asyncio.run(serve(settings))
    except NoCluster as error:
        logger.error("%s", error)
        return 1
    logger.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
