"""`python -m minisgl_operator`: read settings, wire the parts together, run until told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from types import SimpleNamespace

from prometheus_client import start_http_server

from minisgl import __version__
from minisgl_operator import cluster, log
from minisgl_operator.facts import ask_server
from minisgl_operator.metrics import Metrics
from minisgl_operator.queue import Queue
from minisgl_operator.reconcile import Reconciler
from minisgl_operator.resync import Resync
from minisgl_operator.settings import Settings, read
from minisgl_operator.watch import Watches

logger = logging.getLogger("minisgl_operator")


async def serve(settings: Settings) -> None:
    """Run the operator. Returns after SIGTERM; raises if a part ends on its own."""
    metrics = Metrics()
    if settings.metrics_port:
        start_http_server(settings.metrics_port, registry=metrics.registry)
    connection = await cluster.connect(settings.namespaces, metrics)
    reconciler = Reconciler(connection, settings, metrics, ask_server)
    queue = Queue(reconciler.reconcile, metrics)
    resync = Resync(connection, queue, metrics, settings.resync_seconds)
    watches = Watches(settings, connection, metrics, SimpleNamespace(queue=queue, resync=resync))
    # Started before kopf: when its watches restart, kopf cancels every task that is younger than itself.
    background = [asyncio.create_task(queue.run(settings.workers)), asyncio.create_task(resync.run())]
    watching = asyncio.create_task(watches.run())
    try:
        await asyncio.wait([watching, *background], return_when=asyncio.FIRST_COMPLETED)
        for task in (watching, *background):
            if task.done():
                task.result()
    finally:
        for task in (watching, *background):
            task.cancel()
        await asyncio.gather(watching, *background, return_exceptions=True)
        await connection.close()


def main() -> int:
    """The process; returns its exit code."""
    settings = read(sys.argv[1:], os.environ)
    log.configure(settings.log_format)
    logger.info("start version=%s namespaces=%s", __version__, ",".join(settings.namespaces) or "all")
    asyncio.run(serve(settings))
    logger.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
