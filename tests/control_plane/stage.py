"""One test's part of the API server: a namespace, a faulty way to the server, and operators that use it."""

from __future__ import annotations

import copy
import itertools
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from control_plane.client import eventually
from control_plane.kubelet import inspected
from control_plane.process import QUICK, OperatorProcess
from control_plane.proxy import Proxy
from control_plane.server import OPERATOR_TOKEN, ControlPlane, free_port
from minisgl_operator.objects import Child, Object, condition
from support.cluster_objects import PodBuilder, a_spec

CHILDREN = tuple(child.plural for child in Child)
ALWAYS = ("serviceaccounts", "services", "deployments")  # what every model has
NUMBERS = itertools.count(1)
# Differ from run to run without a difference in meaning.
UNSTABLE = {
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "managedFields",
    "namespace",
    "clusterIP",
    "clusterIPs",
    "lastTransitionTime",
    "minisgl.io/applied-hash",  # of texts that hold uid and namespace
    "created",
    "pod",  # which of several told of itself
    "podUid",
    "seconds",
    "scheduled",
    "started",
    "ready",
}


class Stage:
    """Nothing of it outlives the test. Operators run with quick retries unless told otherwise."""

    def __init__(self, plane: ControlPlane, folder: Path, pod_ip: str) -> None:
        self.plane = plane
        self.admin = plane.admin
        self.namespace = f"ns-{next(NUMBERS)}"
        self.proxy = Proxy(plane.url)
        self.operators: list[OperatorProcess] = []
        self.token = OPERATOR_TOKEN
        self._folder = folder
        self._answered: set[str] = set()
        self._pod_ip = pod_ip

    def open(self) -> None:
        self.admin.create_namespace(self.namespace)
        self.proxy.start()

    def close(self) -> None:
        for each in self.operators:
            each.kill()
            each.wait()
        self.proxy.stop()
        for model in self.admin.list("models", self.namespace):
            self.admin.delete("models", self.namespace, model["metadata"]["name"])

    # The operator

    def start(
        self, *, changes: Mapping[str, Any] = QUICK, proxy: Proxy | None = None, **settings: Any
    ) -> OperatorProcess:
        """Start an operator for this namespace."""
        config = self._folder / f"{self.namespace}-{len(self.operators)}.kubeconfig"
        self.plane.kubeconfig((proxy or self.proxy).url, self.token, config)
        chosen = {"watch_namespaces": self.namespace, "metrics_port": 0, "health_port": free_port(), **settings}
        started = OperatorProcess(config, self._folder / f"{self.namespace}.log", chosen, changes)
        self.operators.append(started)
        return started

    def restart(self, **settings: Any) -> OperatorProcess:
        """As a container is started again: the old one is killed first."""
        self.operators[-1].kill()
        self.operators[-1].wait()
        return self.start(**settings)

    def tell(self) -> str:
        """What helps when a test fails."""
        lines = [str(line) for line in self.operators[-1].log()[-15:]] if self.operators else []
        calls = [f"{call.method} {call.path} {call.code}" for call in self.proxy.calls[-15:]]
        return "\n".join([*lines, *calls])

    def until(self, what: str, probe: Any, within: float = 60) -> Any:

        def look() -> Any:
            self.answer_jobs()
            return probe()

        return eventually(what, look, within, self.tell)

    # The user

    def create(self, name: str, **fields: Any) -> None:
        body = {"apiVersion": "minisgl.io/v1alpha1", "kind": "MiniSGLModel", "spec": a_spec(**fields)}
        self.admin.create("models", self.namespace, body | {"metadata": {"name": name}})

    def edit(self, name: str, **fields: Any) -> None:
        self.admin.merge("models", self.namespace, name, {"spec": fields})

    # What is there

    def model(self, name: str) -> Object:
        return self.admin.get("models", self.namespace, name)

    def child(self, kind: str, name: str) -> Object:
        return self.admin.get(kind, self.namespace, name)

    def reason(self, name: str) -> str:
        """The reason that status gives for the newest spec; "" before there is one."""
        model = self.model(name)
        ready = condition(model, "Ready")
        current = model["status"].get("observedGeneration") == model["metadata"]["generation"]
        return str(ready["reason"]) if ready and current else ""

    def until_reason(self, name: str, reason: str, within: float = 60) -> None:
        self.until(f"{name} is {reason}", lambda: self.reason(name) == reason, within)

    def until_whole(self, name: str, within: float = 60) -> None:
        """Until all children are there."""

        def found() -> bool:
            return all(self.admin.find(kind, self.namespace, name) for kind in ALWAYS)

        self.until(f"the children of {name}", found, within)

    def until_looked(self, name: str, times: int = 1) -> None:
        """Until the operator has read this model and its children so often, counted from `proxy.forget`."""
        path = self.admin.path("services", self.namespace, name)
        self.until(f"{times} looks at {name}", lambda: self.looks().count(path) >= times)

    def looks(self) -> list[str]:
        """Each look at a model, as its Service was read, counted from `proxy.forget`."""
        start = self.admin.path("services", self.namespace) + "/"
        return [call.path for call in list(self.proxy.calls) if call.method == "GET" and call.path.startswith(start)]

    def num_lists(self, plural: str) -> int:
        """How often the operator has listed a kind, counted from `proxy.forget`."""
        return sum(call.method == "GET" and call.path.endswith(f"/{plural}") for call in list(self.proxy.calls))

    # Deployment controller, scheduler and kubelet

    def serve(self, name: str, node: str | None = None) -> None:
        """Let one ready pod of the newest template be there, and the Deployment's counters say so."""
        deployment = self.child("deployments", name)
        replicas = deployment["spec"]["replicas"]
        for pod in self.admin.list("pods", self.namespace):
            if pod["metadata"]["labels"].get("minisgl.io/model") == name:
                path = self.admin.path("pods", self.namespace, pod["metadata"]["name"])
                self.admin.call("DELETE", path + "?gracePeriodSeconds=0")
        for number in range(replicas):
            self.run_pod(f"{name}-{deployment['metadata']['generation']}-{number}", deployment, node)
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": replicas,
            "updatedReplicas": replicas,
            "readyReplicas": replicas,
        }
        self.admin.merge("deployments", self.namespace, name, {"status": status}, "/status")

    def answer_jobs(self) -> None:
        """Let every Job that inspects a model end with the model's shape."""
        for job in self.admin.list("jobs", self.namespace):
            name = job["metadata"]["name"]
            if name in self._answered:
                continue
            self._answered.add(name)
            pod = copy.deepcopy(job["spec"]["template"])
            owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
            pod["metadata"] |= {"name": f"{name}-1", "ownerReferences": [owner]}
            self.admin.create("pods", self.namespace, pod)
            self.admin.merge("pods", self.namespace, f"{name}-1", {"status": inspected()}, "/status")

    def run_pod(self, name: str, deployment: Object, node: str | None = None) -> None:
        """One ready pod."""
        template = copy.deepcopy(deployment["spec"]["template"])
        template["metadata"]["name"] = name
        template["spec"] |= {"nodeName": node} if node else {}
        self.admin.create("pods", self.namespace, template)
        status = PodBuilder(name, deployment).ready().obj["status"]
        status["podIP"], status["podIPs"] = self._pod_ip, [{"ip": self._pod_ip}]
        for container in status["containerStatuses"]:
            container |= {"imageID": "", "ready": True}
        self.admin.merge("pods", self.namespace, name, {"status": status}, "/status")

    # Oracles

    def final(self, name: str) -> dict[str, Any]:
        """The model and its children without what differs from run to run."""
        found = {kind: self.admin.find(kind, self.namespace, name) for kind in ("models", *CHILDREN)}
        told = json.dumps({kind: stable(item) for kind, item in found.items() if item})
        result: dict[str, Any] = json.loads(told.replace(self.namespace, "NAMESPACE"))
        return result

    def versions(self, name: str) -> dict[str, tuple[str, str]]:
        """Which state each child is in; any write changes it."""
        found = {kind: self.admin.find(kind, self.namespace, name) for kind in CHILDREN}
        metas = {kind: item["metadata"] for kind, item in found.items() if item}
        return {kind: (meta["uid"], meta["resourceVersion"]) for kind, meta in metas.items()}

    def created(self) -> Counter[str]:
        """How often the operator made an object of a kind."""
        return Counter(call.resource for call in self.proxy.writes if call.code == 201 and call.method == "PATCH")


def stable(value: Any) -> Any:
    """The same without what differs from run to run."""
    if isinstance(value, dict):
        return {name: stable(item) for name, item in value.items() if name not in UNSTABLE}
    return [stable(item) for item in value] if isinstance(value, list) else value
