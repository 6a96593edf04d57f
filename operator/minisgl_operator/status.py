"""The status of a model: pure, from what was observed. Same observation, same bytes, so that nothing is written twice.

    Ready        True only if every wanted replica of the newest spec answers (or none is wanted and none is left)
    Reconciling  True while waiting can help        Stalled  True when only a change can help

All three are always there and carry the same reason and message. `lastTransitionTime` moves only when status flips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from minisgl import termination
from minisgl.info import ServerInfo
from minisgl_operator import api
from minisgl_operator.api import Condition, Key, Startup, Status
from minisgl_operator.build.container import CONTAINER
from minisgl_operator.diagnosis import diagnose
from minisgl_operator.objects import Object, condition, is_leaving, is_true, read_annotations, seconds_between
from minisgl_operator.reasons import Finding, Reason

WAIT = "wait, or see kubectl describe pod"  # the next action where all goes as it should


@dataclass(frozen=True)
class Observation:
    """All that a status is made of. `problem` is what kept the reconciler from applying the spec, if anything did."""

    key: Key
    generation: int
    replicas: int
    deployment: Object | None
    pods: list[Object]
    problem: Finding | None = None

    def newest(self) -> list[Object]:
        """Pods of the newest template, not leaving."""
        wanted = read_annotations(self.deployment).get(api.TEMPLATE_HASH) if self.deployment else None
        return [
            pod for pod in self.pods if read_annotations(pod).get(api.TEMPLATE_HASH) == wanted and not is_leaving(pod)
        ]

    def newest_ready(self) -> list[Object]:
        """Those of them that answer."""
        return [pod for pod in self.newest() if is_true(pod, "Ready")]

    def count(self, field: str) -> int:
        """A counter of the Deployment's status; absent means 0."""
        return int((self.deployment or {}).get("status", {}).get(field, 0))


def build_status(seen: Observation, previous: Object, info: ServerInfo | None, now: str) -> Object:
    """The whole status as a dict. `previous` is the stored one; `info` is what `spokesman`'s server said, if asked."""
    finding, ready = judge(seen)
    num_ready = min(seen.count("readyReplicas"), len([pod for pod in seen.pods if is_true(pod, "Ready")]))
    status = Status(
        conditions=_conditions(finding, ready, seen.generation, previous, now),
        observed_generation=seen.generation,
        replicas=seen.count("replicas"),
        ready_replicas=num_ready,
        updated_replicas=seen.count("updatedReplicas"),
        available=f"{num_ready}/{seen.replicas}",
        selector=",".join(f"{name}={value}" for name, value in api.selector(seen.key.name).items()),
        url=api.url(seen.key),
    )
    result: Object = status.model_dump(by_alias=True, mode="json", exclude_none=True, exclude={"backend"})
    return result | _facts(seen, previous, info)


def judge(seen: Observation) -> tuple[Finding, bool]:
    """The one finding that all conditions carry, and whether the model is ready."""
    if seen.problem is not None:
        return seen.problem, False
    deployment = seen.deployment
    if deployment is None:
        return Finding(Reason.STARTING, "pods are being created", WAIT), False
    settled = deployment.get("status", {}).get("observedGeneration", -1) >= deployment["metadata"]["generation"]
    total, updated = seen.count("replicas"), seen.count("updatedReplicas")
    if settled and seen.replicas == total == 0:
        if draining := [pod for pod in seen.pods if pod.get("status", {}).get("phase") in ("Pending", "Running")]:
            return Finding(Reason.SCALING, f"{len(draining)} pods are finishing their requests", WAIT), False
        return Finding(Reason.SCALED_TO_ZERO, "spec.replicas is 0: no pod runs", "raise it to serve"), True
    served = min(len(seen.newest_ready()), seen.count("readyReplicas"))
    if settled and seen.replicas == total == updated and served >= seen.replicas > 0:
        return Finding(Reason.SERVING, f"{_replicas(seen.replicas)} at {api.url(seen.key)}"), True
    found = diagnose(seen.newest(), deployment)
    stuck = condition(deployment, "Progressing")
    is_stuck = settled and stuck is not None and stuck.get("reason") == "ProgressDeadlineExceeded"
    if found is not None:
        num_older = len([pod for pod in seen.pods if is_true(pod, "Ready") and not is_leaving(pod)]) - served
        beside = f" ({num_older} of the previous spec still serving)" if num_older > 0 else ""
        return Finding(found.reason, found.seen + beside, found.action, found.stalled or is_stuck), False
    progress = f"{served}/{seen.replicas} replicas of the newest spec are ready"
    if is_stuck:
        text = f"{progress}, and none has been added for a long time"
        action = "see kubectl describe pod and kubectl logs"
        return Finding(termination.Reason.START_STALLED, text, action, stalled=True), False
    return _progress(seen, progress, settled), False


def _progress(seen: Observation, progress: str, settled: bool) -> Finding:
    total, updated = seen.count("replicas"), seen.count("updatedReplicas")
    if settled and updated < total:
        return Finding(Reason.ROLLING_OUT, f"{progress}; older pods are being replaced", WAIT)
    if settled and total > seen.replicas:
        return Finding(Reason.SCALING, f"{progress}; {total - seen.replicas} more are being removed", WAIT)
    was_ready = [pod for pod in seen.newest() if _has_started(pod) and not is_true(pod, "Ready")]
    if was_ready:
        name = was_ready[0]["metadata"]["name"]
        text = f"{progress}; pod {name} does not answer its readiness probe"
        return Finding(Reason.NOT_READY, text, f"see kubectl describe pod {name}")
    return Finding(Reason.STARTING, f"{progress}; pods are being created or load the model", WAIT)


def _replicas(num: int) -> str:
    return "1 replica serves" if num == 1 else f"{num} replicas serve"


def _has_started(pod: Object) -> bool:
    """Whether the startup probe has succeeded: from then on readiness alone decides."""
    containers = pod.get("status", {}).get("containerStatuses", [])
    return any(each["name"] == CONTAINER and each.get("started") for each in containers)


def _conditions(finding: Finding, ready: bool, generation: int, previous: Object, now: str) -> list[Condition]:
    truths: list[tuple[Literal["Ready", "Reconciling", "Stalled"], bool]] = [
        ("Ready", ready),
        ("Reconciling", not ready and not finding.stalled),
        ("Stalled", not ready and finding.stalled),
    ]
    result = []
    for kind, truth in truths:
        old = condition({"status": previous}, kind)
        status: Literal["True", "False"] = "True" if truth else "False"
        since = old["lastTransitionTime"] if old is not None and old["status"] == status else now
        result.append(
            Condition(
                type=kind,
                status=status,
                reason=str(finding.reason),
                message=finding.message,
                last_transition_time=since,
                observed_generation=generation,
            )
        )
    return result


def spokesman(seen: Observation, previous: Object) -> Object | None:
    """The ready pod that engine facts and timeline are taken from: the same one as before, else the latest ready."""
    ready = {pod["metadata"]["uid"]: pod for pod in seen.newest_ready()}
    if (uid := previous.get("startup", {}).get("podUid")) in ready:
        return ready[uid]
    return max(ready.values(), key=lambda pod: (_since(pod, "Ready") or "", pod["metadata"]["uid"]), default=None)


def is_known(pod: Object, previous: Object) -> bool:
    """Whether status already holds this pod's facts."""
    return previous.get("startup", {}).get("podUid") == pod["metadata"]["uid"] and "engine" in previous


def _facts(seen: Observation, previous: Object, info: ServerInfo | None) -> Object:
    """engine, backend and startup. What was once written stays until another pod has become ready."""
    pod = spokesman(seen, previous)
    if pod is None or is_known(pod, previous):
        return {name: previous[name] for name in ("engine", "backend", "startup") if name in previous}
    timeline = Startup(
        pod=pod["metadata"]["name"],
        pod_uid=pod["metadata"]["uid"],
        scheduled=_since(pod, "PodScheduled"),
        started=_started(pod),
        ready=_since(pod, "Ready"),
        seconds=seconds_between(pod["metadata"].get("creationTimestamp"), _since(pod, "Ready")),
        runtime_seconds=info.startup_seconds if info else {},
    )
    startup = timeline.model_dump(by_alias=True, exclude_none=True)
    if info is None:
        return {"startup": startup}
    engine = info.engine.model_dump(by_alias=True, mode="json")
    return {"engine": engine, "backend": info.engine.attention_backend, "startup": startup}


def _since(pod: Object, kind: str) -> str | None:
    found = condition(pod, kind)
    return None if found is None else found.get("lastTransitionTime")


def _started(pod: Object) -> str | None:
    containers = pod.get("status", {}).get("containerStatuses", [])
    states = [each.get("state", {}).get("running") or {} for each in containers if each["name"] == CONTAINER]
    return states[0].get("startedAt") if states else None
