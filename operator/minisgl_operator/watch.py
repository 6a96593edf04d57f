"""Runs kopf's watches, and runs them again when they end.

Kopf gives up on a watch ERROR event other than 410 and on a truncated line: the whole operator ends. Models, queue and
resync live outside of it, so here it is simply started anew, with all objects listed afresh. It has a thread and a loop
of its own, because when it ends it cancels every task of its loop, and takes seconds for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import kopf

from minisgl_operator import api
from minisgl_operator.api import Key
from minisgl_operator.cluster import PAGE, KubernetesCluster
from minisgl_operator.errors import ApiError
from minisgl_operator.handlers import CHILDREN, PODS, REGISTRY
from minisgl_operator.metrics import Metrics
from minisgl_operator.queue import Queue
from minisgl_operator.resync import Resync
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
    settings.watching.chunk_size = PAGE
    settings.queueing.idle_timeout = 1  # default 5: each object is held that long, and the first lists bring thousands
    for resource in CHILDREN:
        settings.watching.label_selectors[resource] = api.MODEL_LABEL
    # Also the pods of inspections, which do not carry the model's label.
    settings.watching.label_selectors[PODS] = f"{api.MANAGED_BY_LABEL}={api.FIELD_MANAGER}"
    # Handlers of events need no memory of what objects were like; kopf's own copies and compares each object in full.
    settings.persistence.diffbase_storage = NoDiffs()
    settings.persistence.progress_storage = NoProgress()
    return settings


class NoDiffs(kopf.DiffBaseStorage):
    """Keeps nothing."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


class NoProgress(kopf.ProgressStorage):
    """Keeps nothing."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


class Watches:
    """All watches of one operator. They offer to the queue, and tell liveness how the resync does."""

    def __init__(
        self, settings: Settings, cluster: KubernetesCluster, metrics: Metrics, queue: Queue, resync: Resync
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._metrics = metrics
        self._queue = queue
        self._resync = resync
        self._stop = asyncio.Event()
        self._stop_kopf: Callable[[], object] = lambda: None

    def stop(self) -> None:
        """End `run` soon."""
        self._stop.set()
        self._stop_kopf()

    async def run(self) -> None:
        """Watch until `stop`."""
        loop = asyncio.get_running_loop()
        pause = RESTART_SECONDS
        while not self._stop.is_set():
            if not await self._is_served():
                await self._sleep(CRD_SECONDS)
                continue
            began = loop.time()
            try:
                await self._watch()
            except Exception:
                # Whatever ended kopf, models must be watched again; liveness tells if that never succeeds.
                logger.exception("watches ended, restarting them pause_seconds=%.0f", pause)
            if self._stop.is_set():
                return
            self._metrics.watch_restarts.inc()
            await self._sleep(pause)
            healthy = loop.time() - began > HEALTHY_SECONDS
            pause = RESTART_SECONDS if healthy else min(LONGEST_PAUSE_SECONDS, pause * 2)

    async def _watch(self) -> None:
        """Run kopf in its own thread until it ends or is told to."""
        loop = asyncio.get_running_loop()

        def offer(key: Key, *, urgent: bool = False) -> None:
            loop.call_soon_threadsafe(partial(self._queue.offer, key, urgent=urgent))

        listed = partial(loop.call_soon_threadsafe, self._resync.soon)
        is_echo = self._cluster.echoes.is_echo
        memo = SimpleNamespace(offer=offer, listed=listed, is_echo=is_echo, resync=self._resync)
        await asyncio.to_thread(asyncio.run, self._kopf(memo))

    async def _kopf(self, memo: SimpleNamespace) -> None:
        stop = asyncio.Event()
        self._stop_kopf = partial(asyncio.get_running_loop().call_soon_threadsafe, stop.set)
        if self._stop.is_set():
            stop.set()  # told before it could be heard
        namespaces = self._settings.namespaces
        try:
            await kopf.operator(
                registry=REGISTRY,
                settings=kopf_settings(),
                memo=memo,
                standalone=True,  # else any other operator's peering object would freeze us
                clusterwide=not namespaces,
                namespaces=namespaces,
                liveness_endpoint=f"http://0.0.0.0:{self._settings.health_port}/healthz",
                stop_flag=stop,
            )
        finally:
            self._stop_kopf = lambda: None  # its loop is about to close

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
