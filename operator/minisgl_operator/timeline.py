"""How pods come up: pure, from their conditions and from what their servers say of the start.

created ──► scheduled ──► prepared ──► started ──► ready
   Scheduling   Preparing      Image      Loading        each with its seconds, in status and as a histogram
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from minisgl.info import Place, StartInfo
from minisgl_operator.api import Launched, Loading, PodStart, Startup
from minisgl_operator.build.container import CONTAINER
from minisgl_operator.objects import Object, condition, is_leaving, is_true, seconds_between

Told = Mapping[str, StartInfo]  # uid of a pod -> its server's last answer

MOST_PODS = 10  # in status: a hundred pods that start would be a page that nobody reads
# The runtime's phases that follow one another; a pod may run any image, and a metric's labels must have an end.
RUNTIME_PHASES = ("import", "download", "weights", "trial", "kv-cache", "graphs", "warm-up", "first-answer")
GIB = 2**30


def starting(pods: list[Object]) -> list[Object]:
    """Pods that are not ready and not leaving, the newest first, as many as status tells of."""
    found = [pod for pod in pods if not is_true(pod, "Ready") and not is_leaving(pod) and not _has_ended(pod)]
    found.sort(key=lambda pod: pod["metadata"]["name"])
    found.sort(key=lambda pod: pod["metadata"].get("creationTimestamp", ""), reverse=True)
    return found[:MOST_PODS]


def has_finished(pod: Object, previous: Object) -> bool:
    """Whether this ready pod was still starting when the stored status was written."""
    return is_true(pod, "Ready") and any(pod["metadata"]["uid"] == each["podUid"] for each in previous.get("pods", []))


def is_running(pod: Object) -> bool:
    """Whether its server runs, so that it can be asked."""
    return "running" in container(pod).get("state", {})


def has_served(pod: Object) -> bool:
    """Whether this container has answered: a pod begins as not ready, so it became so again after its start. Between
    the last startup probe and the first readiness probe it has only not been asked yet.
    """
    began, ready = _steps(pod)["started"], condition(pod, "Ready")
    flipped = None if ready is None else ready.get("lastTransitionTime")
    return bool(container(pod).get("started") and began and flipped and flipped > began)


def pod_start(pod: Object, told: Told) -> PodStart:
    """Where one pod is."""
    info = told.get(pod["metadata"]["uid"]) if is_running(pod) else None
    return PodStart(
        **_steps(pod),
        phase=_phase(pod),
        restarts=container(pod).get("restartCount", 0),
        loading=_loading(info.place) if info and info.place else None,
    )


def startup(pod: Object, info: StartInfo | None) -> Startup:
    """How a ready pod came up."""
    return Startup(
        **_steps(pod),
        ready=since(pod, "Ready"),
        seconds=seconds_between(pod["metadata"].get("creationTimestamp"), since(pod, "Ready")),
        runtime_seconds=info.startup_seconds if info else {},
    )


def launched(pod: Object) -> Launched:
    """Image and command line of a pod."""
    specs = pod.get("spec", {}).get("containers", [])
    args: list[str] = next((each.get("args", []) for each in specs if each["name"] == CONTAINER), [])
    found = container(pod)
    _, _, digest = found.get("imageID", "").rpartition("@")
    return Launched(image=found.get("image", ""), image_digest=digest if ":" in digest else "", args=args)


def progress(starts: list[PodStart]) -> str:
    """The slowest pod's place for a table's cell: `Image`, `weights 43%, 35 s left`; empty: none is starting."""
    if not starts:
        return ""
    order = ("NotReady", "Loading", "Image", "Preparing", "Scheduling", "Failing")
    slowest = max(starts, key=lambda each: (order.index(each.phase), (each.loading and each.loading.eta_seconds) or 0))
    loading = slowest.loading
    if slowest.phase != "Loading" or loading is None:
        return slowest.phase
    percent = f" {100 * (loading.done or 0) // loading.total}%" if loading.total else ""
    left = "" if loading.eta_seconds is None else f", {loading.eta_seconds} s left"
    return f"{loading.phase}{percent}{left}"


def phase_seconds(pod: Object, info: StartInfo | None) -> dict[str, float]:
    """Seconds of each phase of a finished start, and in all; only the latter where the container was started again."""
    steps = _steps(pod)
    ends = [steps["created"], steps["scheduled"], steps["prepared"], steps["started"], since(pod, "Ready")]
    result: dict[str, float] = {}
    if not container(pod).get("restartCount"):
        for name, start, end in zip(("Scheduling", "Preparing", "Image", "Loading"), ends, ends[1:], strict=False):
            if (seconds := seconds_between(start, end)) is not None:
                result[name] = max(0, seconds)
        last, longest = 0.0, (seconds_between(ends[0], ends[-1]) or 0) + 1  # whatever the pod says, no phase was longer
        told = info.startup_seconds if info else {}
        for name, at in sorted(told.items(), key=lambda item: item[1]):
            if name in RUNTIME_PHASES and 0 <= at <= longest:
                result[name], last = at - last, at
    if (whole := seconds_between(ends[0], ends[-1])) is not None:
        result["whole"] = max(0, whole)
    return result


def container(pod: Object) -> Object:
    """The server's container as the kubelet reports it; empty before there is one."""
    found: list[Object] = pod.get("status", {}).get("containerStatuses", [])
    return next((each for each in found if each["name"] == CONTAINER), {})


def _steps(pod: Object) -> Object:
    running = container(pod).get("state", {}).get("running") or {}
    return {
        "pod": pod["metadata"]["name"],
        "pod_uid": pod["metadata"]["uid"],
        "created": pod["metadata"].get("creationTimestamp"),
        "scheduled": since(pod, "PodScheduled"),
        "prepared": since(pod, "PodReadyToStartContainers"),
        "started": running.get("startedAt"),
    }


def _phase(pod: Object) -> Literal["Scheduling", "Preparing", "Image", "Loading", "Failing", "NotReady"]:
    found = container(pod)
    if is_running(pod):
        return "NotReady" if has_served(pod) else "Loading"
    if found.get("restartCount") or "terminated" in found.get("state", {}):
        return "Failing"
    if not is_true(pod, "PodScheduled"):
        return "Scheduling"
    return "Image" if is_true(pod, "PodReadyToStartContainers") else "Preparing"


def _loading(place: Place) -> Loading:
    return Loading(
        phase=place.phase[:64],  # any image may answer here
        done=place.done,
        total=place.total,
        bytes_per_second=place.bytes_per_second,
        eta_seconds=None if place.eta_seconds is None else round(place.eta_seconds),
    )


def since(pod: Object, kind: str) -> str | None:
    """When a condition of a pod became True; None if it is not."""
    found = condition(pod, kind)
    return found.get("lastTransitionTime") if found is not None and found["status"] == "True" else None


def _has_ended(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Failed", "Succeeded")
