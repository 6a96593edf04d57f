"""Scheduler and kubelet of any number of pods, without containers: whoever is created becomes ready at once.

Runs beside the real controllers, whose pods it serves. For load only: it never fails, restarts or ends anything.
"""

from __future__ import annotations

import threading

import httpx

from control_plane.client import Client
from minisgl_operator import api
from minisgl_operator.objects import Object
from support.cluster_objects import NOW, an_inspection


def inspected() -> Object:
    """The status of a pod that has told the shape of its model."""
    status: Object = an_inspection().obj["status"]
    for container in status.get("containerStatuses", []):
        container |= {"imageID": "", "ready": False}
    return status


class FakeKubelet:
    """A thread that watches pods of all namespaces."""

    def __init__(self, client: Client, pod_ip: str) -> None:
        self._client = client
        self._pod_ip = pod_ip
        self._stops = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End at the next event, or when the watch does."""
        self._stops.set()
        self._client.close()
        self._thread.join(5)

    def _run(self) -> None:
        try:
            version = self._list()
            while not self._stops.is_set():
                for event in self._client.watch(f"/api/v1/pods?watch=1&resourceVersion={version}"):
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] == "ADDED":
                        self._ready(event["object"])
        except (httpx.HTTPError, RuntimeError):
            if not self._stops.is_set():
                raise

    def _list(self) -> str:
        found = self._client.call("GET", "/api/v1/pods")
        for pod in found["items"]:
            self._ready(pod)
        version: str = found["metadata"]["resourceVersion"]
        return version

    def _ready(self, pod: Object) -> None:
        meta = pod["metadata"]
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": NOW}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ]
        containers = [
            {
                "name": each["name"],
                "image": each["image"],
                "imageID": "",
                "restartCount": 0,
                "ready": True,
                "started": True,
                "state": {"running": {"startedAt": NOW}},
            }
            for each in pod["spec"]["containers"]
        ]
        status = {
            "phase": "Running",
            "podIP": self._pod_ip,
            "podIPs": [{"ip": self._pod_ip}],
            "conditions": conditions,
            "containerStatuses": containers,
        }
        if api.INSPECTS_LABEL in meta.get("labels", {}):
            status = inspected()
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status"
        try:
            self._client.call("PATCH", path, {"status": status}, "application/merge-patch+json")
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.NOT_FOUND:
                raise
