"""How the operator does with many models, measured: `make load` (MODELS=1000). A script, not a timed test.

A real API server and the real controllers of Deployments, which make CONTROLLER_QPS=20 requests a second, as they do by
default; pods become ready at once (`kubelet`). One of the models is poisoned: its Service's name is taken. Prints a
table and writes operator/benchmarks/results/load.json (of the default pace).
"""

from __future__ import annotations

import json
import os
import platform
import queue
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from charts.tools import ROOT
from control_plane.conftest import Facts
from control_plane.kubelet import FakeKubelet
from control_plane.process import OperatorProcess
from control_plane.server import ADMIN_TOKEN, OPERATOR_TOKEN, ControlPlane, free_port
from minisgl_operator.build.launch import PORT
from minisgl_operator.objects import Object, condition
from support.cluster_objects import a_spec

RESULTS = ROOT / "operator" / "benchmarks" / "results" / "load.json"
NAMESPACE, POISON = "load", "poison"
CHILDREN = ("serviceaccounts", "services", "deployments")
NUM_CHANGES = 60
LIMIT_SECONDS = 3600
DEFAULT_QPS = 20  # kube-controller-manager's --kube-api-qps
POLL_SECONDS = 0.5


class Load:
    """One run."""

    def __init__(self, folder: Path, num_models: int, pod_ip: str, controller_qps: int = DEFAULT_QPS) -> None:
        self.folder = folder
        self.pace = (f"--kube-api-qps={controller_qps}", f"--kube-api-burst={controller_qps * 3 // 2}")
        self.names = [f"m-{number:04}" for number in range(num_models)]
        self.plane = ControlPlane(folder)
        self.admin = self.plane.admin
        self.pod_ip = pod_ip
        self.metrics_port = free_port()
        self.starts = 0
        self.figures: dict[str, float] = {}

    def run(self) -> dict[str, float]:
        self.plane.start()
        kubelet = FakeKubelet(self.plane.client(ADMIN_TOKEN), self.pod_ip)
        try:
            self.plane.start_controllers(
                "deployment-controller", "replicaset-controller", "job-controller", flags=self.pace
            )
            kubelet.start()
            self.admin.create_namespace(NAMESPACE)
            port = {"spec": {"ports": [{"port": 80}]}}
            self.admin.create("services", NAMESPACE, {"metadata": {"name": POISON}, **port})
            operator = self.start()
            self.creation(operator)
            self.changes()
            self.figures["peak_rss_mib"] = memory_mib(operator, "VmHWM")
            self.idle(operator)
            operator = self.restart(operator)
            self.figures["restart_peak_rss_mib"] = memory_mib(operator, "VmHWM")
            operator.kill()
            operator.wait()
        finally:
            kubelet.stop()
            self.plane.stop()
        return self.figures

    def start(self) -> OperatorProcess:
        self.starts += 1
        config = self.plane.kubeconfig(self.plane.url, OPERATOR_TOKEN, self.folder / "operator.kubeconfig")
        settings = {"metrics_port": self.metrics_port, "health_port": free_port(), "watch_namespaces": NAMESPACE}
        return OperatorProcess(config, self.folder / f"operator-{self.starts}.log", settings, {})

    def creation(self, operator: OperatorProcess) -> None:
        """All models at once: until every child is there, and until every model serves."""
        mark, began, cpu = self.writes(), time.perf_counter(), cpu_seconds(operator)
        for name in [*self.names[: len(self.names) // 2], POISON, *self.names[len(self.names) // 2 :]]:
            body = {"apiVersion": "minisgl.io/v1alpha1", "kind": "MiniSGLModel", "spec": a_spec()}
            self.admin.create("models", NAMESPACE, body | {"metadata": {"name": name}})
        self.figures["models_created_s"] = time.perf_counter() - began
        self.until("all children", lambda: all(self.count(kind) >= num for kind, num in self.expected().items()))
        self.figures["children_created_s"] = time.perf_counter() - began
        ready = 'minisgl_operator_models{condition="Ready"}'
        self.until("all serve", lambda: self.metric(ready) == len(self.names) and self.serving() == len(self.names))
        self.figures["all_ready_s"] = time.perf_counter() - began
        self.figures["all_ready_cpu_s"] = cpu_seconds(operator) - cpu
        self.settle()
        self.figures["writes_per_model"] = (self.writes() - mark) / len(self.names)
        self.figures["reconciles_per_model"] = self.metric("minisgl_operator_reconcile_total") / len(self.names)

    def changes(self) -> None:
        """One change a second: from the request that changes a spec to the event of the changed Deployment."""
        seen: queue.SimpleQueue[tuple[str, float]] = queue.SimpleQueue()
        client = self.plane.client(ADMIN_TOKEN)
        watcher = threading.Thread(target=self.watch, args=(client.watch, seen), daemon=True)
        watcher.start()
        times = []
        for number in range(NUM_CHANGES):
            name, mark = random.choice(self.names), f"change-{number}"
            began = time.perf_counter()
            spec = {"model": {"servedName": mark}}
            self.admin.merge("models", NAMESPACE, name, {"spec": spec})
            while (event := seen.get(timeout=60))[0] != mark:
                pass
            times.append(event[1] - began)
            time.sleep(max(0.0, 1 - (time.perf_counter() - began)))
        client.close()
        times.sort()
        self.figures["change_p50_s"] = times[len(times) // 2]
        self.figures["change_p99_s"] = times[int(len(times) * 0.99)]
        self.figures["change_max_s"] = times[-1]

    def watch(self, watch: Callable[[str], Any], seen: queue.SimpleQueue[tuple[str, float]]) -> None:
        """Tell each changed name that a Deployment's arguments carry, and when it was seen."""
        known: set[str] = set()
        path = self.admin.path("deployments", NAMESPACE) + "?watch=1"
        try:
            for event in watch(path):
                for argument in event["object"]["spec"]["template"]["spec"]["containers"][0]["args"]:
                    name = argument.partition("=")[2]
                    if name.startswith("change-") and name not in known:
                        known.add(name)
                        seen.put((name, time.perf_counter()))
        except (httpx.HTTPError, RuntimeError):
            return  # closed

    def idle(self, operator: OperatorProcess) -> None:
        """CPU in a quiet half minute."""
        self.settle()
        before, began = cpu_seconds(operator), time.perf_counter()
        time.sleep(30)
        self.figures["idle_cpu_percent"] = (cpu_seconds(operator) - before) / (time.perf_counter() - began) * 100

    def restart(self, operator: OperatorProcess) -> OperatorProcess:
        """End it and start it: until it has looked at every model and has nothing left to do."""
        operator.kill()
        operator.wait()
        mark, began = self.writes(), time.perf_counter()
        fresh = self.start()
        self.until("it has listed them", lambda: self.metric("minisgl_operator_last_resync") > 0)
        self.until("it has caught up", lambda: self.metric("minisgl_operator_queue_length") == 0)
        self.figures["restart_caught_up_s"] = time.perf_counter() - began
        self.figures["restart_cpu_s"] = cpu_seconds(fresh)
        self.settle()
        self.figures["restart_writes"] = self.writes() - mark
        self.figures["restart_reconciles"] = self.metric("minisgl_operator_reconcile_total")
        return fresh

    # Looking

    def until(self, what: str, probe: Callable[[], Any]) -> None:
        end = time.monotonic() + LIMIT_SECONDS
        while not probe():
            if time.monotonic() > end:
                raise TimeoutError(f"not within {LIMIT_SECONDS} s: {what}")
            time.sleep(POLL_SECONDS)

    def settle(self) -> None:
        """Until nothing has been written or reconciled for five seconds."""
        before, since = -1.0, time.monotonic()
        while time.monotonic() - since < 5:
            now = self.writes() + self.metric("minisgl_operator_reconcile_total")
            if now != before:
                before, since = now, time.monotonic()
            time.sleep(0.5)

    def expected(self) -> dict[str, int]:
        """How many there are when all children are: a Service more, whose name is the poisoned model's."""
        return {kind: len(self.names) + (kind == "services") for kind in CHILDREN}

    def count(self, kind: str) -> int:
        """How many objects of a kind there are, without reading them all."""
        found = self.admin.call("GET", self.admin.path(kind, NAMESPACE) + "?limit=1")
        return len(found["items"]) + int(found["metadata"].get("remainingItemCount", 0))

    def serving(self) -> int:
        return sum(self.is_serving(model) for model in self.admin.list("models", NAMESPACE))

    def is_serving(self, model: Object) -> bool:
        ready = condition(model, "Ready")
        return ready is not None and ready["status"] == "True"

    def writes(self) -> int:
        """What the operator has written so far, by the audit log."""
        return sum(1 for _ in self.plane.audit_log.open()) if self.plane.audit_log.exists() else 0

    def metric(self, name: str) -> float:
        """The sum of a metric's samples; 0 while there is no answer."""
        try:
            text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics").text
        except httpx.HTTPError:
            return 0.0
        lines = [line for line in text.splitlines() if line.startswith(name)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def memory_mib(operator: OperatorProcess, field: str) -> float:
    """Of /proc/PID/status."""
    lines = Path(f"/proc/{operator.pid}/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def cpu_seconds(operator: OperatorProcess) -> float:
    """User and system time of the process."""
    fields = Path(f"/proc/{operator.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, print, write."""
    import http.server

    num_models = int(os.environ.get("MODELS", "1000"))
    controller_qps = int(os.environ.get("CONTROLLER_QPS", str(DEFAULT_QPS)))
    address = "127.199.199.7"
    with tempfile.TemporaryDirectory() as folder, http.server.ThreadingHTTPServer((address, PORT), Facts) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        figures = Load(Path(folder), num_models, address, controller_qps).run()
        server.shutdown()
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    result = {
        "models": num_models,
        "controller_qps": controller_qps,
        "machine": machine,
        "load_average": os.getloadavg()[0],
        **figures,
    }
    rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in result.items()}
    for name, value in rounded.items():
        print(f"{name:<24} {value}")
    if num_models >= 1000 and controller_qps == DEFAULT_QPS:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(rounded, indent=2) + "\n")
        print(f"wrote {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    try:
        main()
    except (FileNotFoundError, RuntimeError, TimeoutError) as error:
        sys.exit(f"load: {error}")
