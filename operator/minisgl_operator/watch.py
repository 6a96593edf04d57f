"""Runs kopf's watches, and runs them again when they end.

Kopf gives up on a watch ERROR event other than 410 and on a truncated line: the whole operator ends. Models, queue and
resync live outside of it, so here it is simply started anew, with all objects listed afresh.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from types import SimpleNamespace

import kopf

from minisgl_operator import api
from minisgl_operator.cluster import Cluster
from minisgl_operator.errors import ApiError
from minisgl_operator.handlers import CHILDREN, REGISTRY
from minisgl_operator.metrics import Metrics
from minisgl_operator.settings import Settings

logger = logging.getLogger(__name__)

RESTART_SECONDS = 1.0
CRD_SECONDS = 2.0
# A run this long was healthy, so its end does not lengthen the pause.
HEALTHY_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 10.0


def kopf_settings() -> kopf.OperatorSettings:
    """Kopf's settings, each with its reason."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False  # events are `reconcile`'s, on transitions only
    settings.scanning.disabled = True  # else it wants to list namespaces and definitions: more rights than we need
    settings.networking.request_timeout = 30  # default 300: a hung API server must be noticed
    settings.watching.server_timeout = 300  # a fresh watch every five minutes ...
    settings.watching.client_timeout = 330  # ... even if the server forgets
    settings.watching.connect_timeout = 15
    for resource in CHILDREN:
        settings.watching.label_selectors[resource] = api.MODEL_LABEL
    return settings


class Watches:
    """All watches of one operator. `memo` carries queue and resync to the handlers."""

    def __init__(self, settings: Settings, cluster: Cluster, metrics: Metrics, memo: SimpleNamespace) -> None:
        self._settings = settings
        self._cluster = cluster
        self._metrics = metrics
        self._memo = memo
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End `run`, as SIGTERM does."""
        self._stop.set()

    async def run(self) -> None:
        """Watch until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        pause = RESTART_SECONDS
        while not self._stop.is_set():
            for number in (signal.SIGTERM, signal.SIGINT):  # kopf replaces them while it runs
                loop.add_signal_handler(number, self.stop)
            if not await self._is_served():
                await self._sleep(CRD_SECONDS)
                continue
            began = loop.time()
            try:
                await self._watch()
                return
            except Exception:
                # Whatever ended kopf, models must be watched again; liveness tells if that never succeeds.
                logger.exception("watches ended, restarting them pause_seconds=%.0f", pause)
                self._metrics.watch_restarts.inc()
            await self._sleep(pause)
            healthy = loop.time() - began > HEALTHY_SECONDS
            pause = RESTART_SECONDS if healthy else min(LONGEST_PAUSE_SECONDS, pause * 2)

    async def _watch(self) -> None:
        namespaces = self._settings.namespaces
        await kopf.operator(
            registry=REGISTRY,
            settings=kopf_settings(),
            memo=self._memo,
            standalone=True,  # else any other operator's peering object would freeze us
            clusterwide=not namespaces,
            namespaces=namespaces,
            liveness_endpoint=f"http://0.0.0.0:{self._settings.health_port}/healthz",
            stop_flag=self._stop,
        )

    async def _is_served(self) -> bool:
        """Kopf looks for resources only once: wait until the definition is there."""
        try:
            await self._cluster.models()
        except ApiError as error:
            hint = "; apply manifests/crd.yaml" if error.status == 404 else ""
            logger.warning("waiting for the API: %s%s", error, hint)
            return False
        return True

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return
