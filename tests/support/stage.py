"""One model in a cluster in memory, with the reconciler that looks after it. The clock moves with every look."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any

from minisgl.info import StartInfo
from minisgl_operator import api
from minisgl_operator.looks import Looks
from minisgl_operator.metrics import Metrics
from minisgl_operator.objects import Child, Object, condition
from minisgl_operator.reconcile import Reconciler
from support.cluster_objects import SETTINGS, start_info
from support.fake_cluster import FakeCluster


class Stage:
    """A cluster, a reconciler and one model."""

    def __init__(self, **fields: Any) -> None:
        self.cluster = FakeCluster()
        self.metrics = Metrics()
        self.answers: StartInfo | None = start_info()
        self.asked: list[str] = []
        ticks = itertools.count()
        self.reconciler = Reconciler(
            self.cluster, SETTINGS, self.metrics, self._ask, now=lambda: f"2026-11-24T12:{next(ticks):02}:00Z"
        )
        self.seconds = 0.0  # of the clock that says when to ask again
        self.reconciler._looks = Looks(self._ask, lambda: self.seconds)
        self.key = self.cluster.create_model(**fields)

    async def _ask(self, pod: Object) -> StartInfo | None:
        self.asked.append(pod["metadata"]["name"])
        return self.answers

    def reconcile(self) -> float | None:
        return asyncio.run(self.reconciler.reconcile(self.key))

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Await one call of the cluster."""
        return asyncio.run(call)

    def serve(self) -> None:
        """Reconcile until ready, then forget the writes."""
        self.reconcile()
        self.cluster.run_pods(self.key)
        self.reconcile()
        assert self.reason == "Serving"
        self.cluster.writes.clear()
        self.cluster.events.clear()

    @property
    def status(self) -> Object:
        found: Object = self.cluster.objects[api.PLURAL, *self.key]["status"]
        return found

    @property
    def ready(self) -> Object:
        found = condition({"status": self.status}, "Ready")
        assert found is not None
        return found

    @property
    def stalled(self) -> Object:
        found = condition({"status": self.status}, "Stalled")
        assert found is not None
        return found

    @property
    def reason(self) -> str:
        return str(self.ready["reason"])

    def child(self, child: Child) -> Object:
        return self.cluster.objects[child.plural, *self.key]

    @property
    def args(self) -> list[str]:
        found: list[str] = self.child(Child.DEPLOYMENT)["spec"]["template"]["spec"]["containers"][0]["args"]
        return found
