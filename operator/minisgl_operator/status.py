"""The status of a model: pure, from what was observed. Same observation, same bytes, so that nothing is written twice.

    Ready        True only if every wanted replica of the newest spec answers (or none is wanted and none is left)
    Reconciling  True while waiting can help        Stalled  True when only a change can help

All three are always there and carry the same reason and message. `lastTransitionTime` moves only when status flips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from minisgl import termination
from minisgl.info import StartInfo
from minisgl_operator import api, timeline
from minisgl_operator.api import Key, Part, Status
from minisgl_operator.conditions import conditions
from minisgl_operator.diagnosis import diagnose
from minisgl_operator.fit import beside
from minisgl_operator.objects import Object, condition, is_leaving, is_true, read_annotations
from minisgl_operator.reasons import Finding, Reason

KUBERNETES_DEADLINE_SECONDS = 600  # of a Deployment that says none
WAIT = "wait; status.pods says how far each pod is"  # the next action where all goes as it should
SEPARATE = {"backend", "engine", "launched", "plan", "pods", "progress", "startup"}  # absent rather than empty


@dataclass(frozen=True)
class Observation:
    """All that a status is made of. `problem` is what kept the reconciler from applying the spec, if anything did;
    `told` is what servers said of themselves, by the uid of their pod.
    """

    key: Key
    generation: int
    replicas: int
    deployment: Object | None
    pods: list[Object]
    problem: Finding | None = None
    told: Mapping[str, StartInfo] = field(default_factory=dict)
    hint: str = ""  # what may explain a model that is not ready
    plan: Object | None = None
    note: str = ""  # what is to be said beside the finding, whatever that is

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


def build_status(seen: Observation, previous: Object, now: str) -> Object:
    """The whole status as a dict. `previous` is the stored one."""
    finding, ready = judge(seen)
    if seen.hint and not ready:
        finding = replace(finding, seen=f"{finding.seen}; {seen.hint}")
    if seen.note:
        finding = replace(finding, seen=f"{finding.seen}; {seen.note}")
    num_ready = min(seen.count("readyReplicas"), len([pod for pod in seen.pods if is_true(pod, "Ready")]))
    status = Status(
        conditions=conditions(finding, ready, seen.generation, previous, now),
        observed_generation=seen.generation,
        replicas=seen.count("replicas"),
        ready_replicas=num_ready,
        updated_replicas=seen.count("updatedReplicas"),
        available=f"{num_ready}/{seen.replicas}",
        selector=",".join(f"{name}={value}" for name, value in api.selector(seen.key.name).items()),
        url=api.url(seen.key),
    )
    result: Object = status.model_dump(by_alias=True, mode="json", exclude_none=True, exclude=SEPARATE)
    result |= _starts(seen) | _facts(seen, previous)
    if plan := seen.plan or previous.get("plan"):
        result["plan"] = beside(plan, result.get("engine") if spokesman(seen, previous) else None)
    return result


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
    is_late = settled and stuck is not None and stuck.get("reason") == "ProgressDeadlineExceeded"
    # A server that still says how far it is loads on, and ends itself when nothing advances.
    is_stuck = is_late and not any(timeline.is_running(pod) and _uid(pod) in seen.told for pod in seen.newest())
    num_older = len([pod for pod in seen.pods if is_true(pod, "Ready") and not is_leaving(pod)]) - served
    beside = f" ({num_older} of the previous spec still serving)" if num_older > 0 else ""
    seconds = deployment["spec"].get("progressDeadlineSeconds", KUBERNETES_DEADLINE_SECONDS)
    late = f"; no pod has got further for {seconds} s, the progress deadline" if is_stuck else ""
    if found is not None:
        return Finding(found.reason, found.seen + late + beside, found.action, found.stalled or is_stuck), False
    progress = f"{served}/{seen.replicas} replicas of the newest spec are ready"
    if is_stuck:
        reason = Reason.ROLLOUT_STUCK if num_older > 0 else termination.Reason.START_STALLED
        action = "see kubectl describe pod and kubectl logs, or apply the spec that served"
        return Finding(reason, progress + late + beside, action, stalled=True), False
    return _progress(seen, progress, settled), False


def _progress(seen: Observation, progress: str, settled: bool) -> Finding:
    total, updated = seen.count("replicas"), seen.count("updatedReplicas")
    if settled and updated < total:
        return Finding(Reason.ROLLING_OUT, f"{progress}; older pods are being replaced", WAIT)
    if settled and total > seen.replicas:
        return Finding(Reason.SCALING, f"{progress}; {total - seen.replicas} more are being removed", WAIT)
    was_ready = [pod for pod in seen.newest() if timeline.has_served(pod) and not is_true(pod, "Ready")]
    if was_ready:
        name = was_ready[0]["metadata"]["name"]
        text = f"{progress}; pod {name} does not answer its readiness probe"
        return Finding(Reason.NOT_READY, text, f"see kubectl describe pod {name}")
    return Finding(Reason.STARTING, f"{progress}; pods are being created or load the model", WAIT)


def _replicas(num: int) -> str:
    return "1 replica serves" if num == 1 else f"{num} replicas serve"


def _uid(pod: Object) -> str:
    uid: str = pod["metadata"]["uid"]
    return uid


def spokesman(seen: Observation, previous: Object) -> Object | None:
    """The ready pod that engine facts and timeline are taken from: the same one as before, else the latest ready."""
    ready = {_uid(pod): pod for pod in seen.newest_ready()}
    if (uid := previous.get("startup", {}).get("podUid")) in ready:
        return ready[uid]
    return max(ready.values(), key=lambda pod: (timeline.since(pod, "Ready") or "", _uid(pod)), default=None)


def is_known(pod: Object, previous: Object) -> bool:
    """Whether status already holds this pod's facts."""
    return previous.get("startup", {}).get("podUid") == pod["metadata"]["uid"] and "engine" in previous


def to_ask(seen: Observation, previous: Object) -> list[Object]:
    """The pods whose servers have news: those that load, those that have just become ready, and the spokesman."""
    pods = [pod for pod in timeline.starting(seen.pods) if timeline.is_running(pod)]
    pods += [pod for pod in seen.pods if timeline.has_finished(pod, previous)]
    pod = spokesman(seen, previous)
    if pod is not None and not is_known(pod, previous) and pod not in pods:
        pods.append(pod)
    return pods


def _starts(seen: Observation) -> Object:
    """pods and progress; absent when none is on its way."""
    starts = [timeline.pod_start(pod, seen.told) for pod in timeline.starting(seen.pods)]
    if not starts:
        return {}
    return {"progress": timeline.progress(starts), "pods": [_plain(each) for each in starts]}


def _facts(seen: Observation, previous: Object) -> Object:
    """engine, backend, launched and startup. What was once written stays until another pod has become ready."""
    pod = spokesman(seen, previous)
    if pod is None or is_known(pod, previous):
        return {name: previous[name] for name in ("engine", "backend", "launched", "startup") if name in previous}
    info = seen.told.get(pod["metadata"]["uid"])
    server = info.server if info else None
    startup = {"startup": _plain(timeline.startup(pod, info)), "launched": _plain(timeline.launched(pod))}
    if server is None:
        return startup
    engine = server.engine.model_dump(by_alias=True, mode="json", exclude_none=True)
    return {"engine": engine, "backend": server.engine.attention_backend} | startup


def _plain(part: Part) -> Object:
    result: Object = part.model_dump(by_alias=True, mode="json", exclude_none=True)
    return result
