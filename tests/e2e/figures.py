"""What the README's table shows, measured on the running cluster: `make figures`. A script, not a timed test.

Prints: model applied -> pod created (p50 of 20), the timeline of one real start, the operator's memory.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import kubernetes.client
import kubernetes.config
import kubernetes.watch
import yaml

from charts.tools import ROOT
from e2e import environment, kube, specs
from e2e.environment import MODELS, RELEASE, SYSTEM

API: Any = kubernetes  # half of it carries no types
SAMPLES = 20
SAMPLE = ROOT / "manifests" / "samples" / "smollm2-cpu.yaml"
MEMORY = "print(*(line for line in open('/proc/1/status') if line.startswith(('VmRSS', 'VmHWM'))), sep='', end='')"


def main() -> None:
    """Measure and print."""
    env = environment.read()
    environment.install_operator(env)
    API.config.load_kube_config(os.environ["KUBECONFIG"])
    times = [pod_created_after(f"figure-{number}", env.models_folder) for number in range(SAMPLES)]
    print(f"applied -> inspected -> pod created, {SAMPLES} models: {spread(times)}")
    for line in start_timeline():
        print(line)
    print("operator, after that:")
    print(kube.kubectl("exec", f"deployment/{RELEASE}", "--namespace", SYSTEM, "--", "python3", "-c", MEMORY))


def pod_created_after(name: str, models_folder: Path) -> float:
    """Seconds from the request that creates a model to the event of its pod, behind the inspection of the model.

    The pod never starts: no node has so many cores. A source of its own, as models of one source share an answer.
    """
    link = models_folder / name
    link.symlink_to(specs.REAL.rsplit("/", 1)[-1])
    body = specs.wanted(name, f"pvc://models/{name}", resources={"requests": {"cpu": "640"}})
    pods, models, watch = API.client.CoreV1Api(), API.client.CustomObjectsApi(), API.watch.Watch()
    selector = f"minisgl.io/model={name}"
    since = pods.list_namespaced_pod(MODELS, label_selector=selector).metadata.resource_version
    started = time.perf_counter()
    models.create_namespaced_custom_object("minisgl.io", "v1alpha1", MODELS, "minisglmodels", body)
    arguments = {"label_selector": selector, "resource_version": since, "timeout_seconds": 30}
    next(iter(watch.stream(pods.list_namespaced_pod, MODELS, **arguments)))
    seconds = time.perf_counter() - started
    watch.stop()
    kube.delete(name)
    link.unlink()
    return seconds


def start_timeline() -> list[str]:
    """One start of the sample, from `kubectl apply` to Ready, as its status tells it."""
    name = yaml.safe_load(SAMPLE.read_text())["metadata"]["name"]
    kube.delete(name)
    started = time.perf_counter()
    kube.kubectl("apply", "--filename", str(SAMPLE))
    kube.wait_until(name, within=180)
    total = time.perf_counter() - started
    status = kube.eventually("a timeline", lambda: kube.get("msgl", name)["status"].get("startup"), about=name)
    created = datetime.fromisoformat(kube.get("pod", status["pod"])["metadata"]["creationTimestamp"])
    steps = [
        f"  {step:<10} {(datetime.fromisoformat(status[step]) - created).total_seconds():5.0f} s after the pod was made"
        for step in ("scheduled", "started", "ready")
    ]
    ended = sorted(status["runtimeSeconds"].items(), key=lambda item: float(item[1]))
    phases = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in ended)
    return [f"kubectl apply -> Ready: {total:.1f} s", *steps, f"  seconds from process start to the end of: {phases}"]


def spread(times: list[float]) -> str:
    """Median and extremes in milliseconds."""
    ordered = sorted(time * 1000 for time in times)
    return f"p50 {statistics.median(ordered):.0f} ms, min {ordered[0]:.0f} ms, max {ordered[-1]:.0f} ms"


if __name__ == "__main__":
    try:
        main()
    except (LookupError, environment.HelmError, kube.KubectlError, subprocess.TimeoutExpired) as error:
        raise SystemExit(f"figures: {error}") from error
