"""One story per model: observe, plan, apply, report. Level-triggered and idempotent: it never asks what has happened.

Reads the model, its children and its pods; applies children that differ from the plan; writes a status that differs
from the stored one. When all is as it should be, it only reads.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pydantic import ValidationError

from minisgl_operator import status, timeline
from minisgl_operator.answers import Answers
from minisgl_operator.api import Key, Spec
from minisgl_operator.build import children
from minisgl_operator.build.claims import are_taken, claims_of, judge_claims
from minisgl_operator.cluster import Cluster
from minisgl_operator.diagnosis import read_admission
from minisgl_operator.drift import Work, check_owners, compare
from minisgl_operator.errors import (
    Forbidden,
    Leftover,
    NameTaken,
    NotFound,
    Paused,
    Refused,
    Rejected,
    SpecError,
    UnknownKind,
)
from minisgl_operator.facts import Ask
from minisgl_operator.inspection import Foresight, Held
from minisgl_operator.looks import Looks
from minisgl_operator.metrics import Metrics
from minisgl_operator.objects import Child, Children, Object, condition, is_leaving, is_true
from minisgl_operator.reasons import Finding, Reason
from minisgl_operator.settings import Settings
from minisgl_operator.snapshot import Snapshot, ask_nobody
from minisgl_operator.status import Observation

logger = logging.getLogger(__name__)

NORMAL = {
    Reason.INSPECTING,
    Reason.SERVING,
    Reason.SCALED_TO_ZERO,
    Reason.STARTING,
    Reason.ROLLING_OUT,
    Reason.SCALING,
    Reason.REPLACING,
}
# No event tells that a right was granted, a rule eased, a foreign object is gone, or a namesake's child is: look again.
LOOK_AGAIN_SECONDS: dict[str, float] = {
    Reason.FORBIDDEN: 15.0,
    Reason.QUOTA_EXCEEDED: 15.0,
    Reason.POD_REJECTED: 15.0,
    Reason.NAME_CONFLICT: 15.0,
    Reason.REPLACING: 1.0,
}
CONDITIONS = ("Ready", "Reconciling", "Stalled")


@dataclass(frozen=True)
class Outcome:
    """What came of bringing the children to the plan, beside the children themselves."""

    hint: str = ""  # what may explain a model that is not ready
    note: str = ""  # what is to be said in any case
    memory: Object | None = None  # the memory plan, if one was made


def utc_now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Reconciler:
    """Brings one model at a time to what its spec says. Holds no state that a restart would miss."""

    def __init__(
        self, cluster: Cluster, settings: Settings, metrics: Metrics, ask: Ask, now: Callable[[], str] = utc_now
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._metrics = metrics
        self._looks = Looks(ask)
        self._answers = Answers()
        self._now = now
        self._standing: dict[Key, str] = {}  # model -> its true condition, for the metric

    async def reconcile(self, key: Key) -> float | None:
        """Do it. Returns seconds after which to look again, or None. Raises ApiError when a retry is due."""
        model = await self._cluster.model(key)
        if model is None or is_leaving(model):
            self._looks.forget(key)
            self._count(key, None)  # the garbage collector deletes the children
            return None
        stored: Children = dict.fromkeys(Child)
        pods: list[Object] = []
        problem, outcome, again = None, Outcome(), None
        try:
            stored, pods = await self._observe(key)
            outcome = await self._apply(key, model, stored)
        except Held as error:
            problem, outcome, again = error.finding, Outcome(memory=error.plan), error.look_again_seconds
        except NameTaken as error:
            problem = Finding(Reason.NAME_CONFLICT, str(error), error.action, stalled=True)
            stored[error.child] = None
        except Leftover as error:
            problem = Finding(Reason.REPLACING, str(error), "wait: this model follows by itself")
            stored, pods = dict.fromkeys(Child), []
        except Paused as error:
            problem = Finding(Reason.PAUSED, str(error), "set spec.pause to false", stalled=True)
        except (SpecError, Refused) as error:
            action = f"{advice(model['spec'], error)} (pods of the last good spec are left alone)"
            problem = Finding(Reason.INVALID_SPEC, str(error), action, stalled=True)
        except Rejected as error:
            if "being terminated" in error.message:
                return None  # the whole namespace goes away, and this model with it
            problem = read_admission(str(error))
        except Forbidden as error:
            problem = Finding(Reason.FORBIDDEN, str(error), "grant the operator this right (manifests/rbac.yaml)")
        seen = Observation(
            key=key,
            generation=model["metadata"]["generation"],
            replicas=model["spec"].get("replicas", 1),
            deployment=stored[Child.DEPLOYMENT],
            pods=pods,
            problem=problem,
            hint=outcome.hint,
            plan=outcome.memory,
            note=outcome.note,
        )
        previous = model.get("status", {})
        told, delay = await self._looks.look(key, status.to_ask(seen, previous))
        seen = replace(seen, told=told)
        await self._report(model, seen, status.build_status(seen, previous, self._now()))
        return delay if problem is None else again or LOOK_AGAIN_SECONDS.get(problem.reason, delay)

    async def is_settled(self, key: Key, snapshot: Snapshot) -> bool:
        """Whether a reconcile would do nothing: the same story, told on paper."""
        on_paper = copy.copy(self)
        on_paper._cluster, on_paper._looks = snapshot, Looks(ask_nobody)
        try:
            return await on_paper.reconcile(key) is None
        except Exception:
            return False  # whatever it is, the real look deals with it

    async def _observe(self, key: Key) -> tuple[Children, list[Object]]:
        reads = asyncio.gather(*(self._read(child, key) for child in Child))
        found, pods = await asyncio.gather(reads, self._cluster.pods(key))
        return {child: body for each in found for child, body in each.items()}, pods

    async def _read(self, child: Child, key: Key) -> Children:
        try:
            return {child: await self._cluster.child(child, key)}
        except UnknownKind:
            if child.optional:
                return {}
            raise

    async def _apply(self, key: Key, model: Object, stored: Children) -> Outcome:
        """Bring the children to the plan, and put what is stored then into `stored`.

        Raises Held where the Deployment has to wait; its number of pods does not.
        """
        check_owners(key, model, {child: body for child, body in stored.items() if not child.optional})
        spec = parse(model["spec"])
        plan = children(key, model["metadata"]["uid"], spec, self._settings, stored[Child.DEPLOYMENT])
        check_owners(key, model, {child: stored[child] for child in plan if child in stored})
        claims = await self._claims(key, spec)
        hint = judge_claims(spec, plan[Child.DEPLOYMENT], claims)
        work = compare(model, plan, stored)
        if spec.pause:
            return Outcome(hint, _rest(work))
        foresight = Foresight(self._cluster, self._answers, model, spec, plan[Child.DEPLOYMENT], self._now())
        memory: Object = {}
        for child, wanted in plan.items():
            if child is Child.DEPLOYMENT:
                try:
                    memory = await foresight.admit(stored[child], may_ask=not are_taken(stored[child], claims))
                except Held:
                    await self._scale(key, stored, spec.replicas)
                    raise
            if child not in work.apply:
                continue
            # Not forced on the first time: a foreign object that appeared meanwhile stays whole.
            stored[child] = await self._cluster.apply(child, wanted, force=stored[child] is not None)
            logger.info("applied kind=%s model=%s", child.kind, key)
        for child, body in work.delete.items():
            await self._cluster.delete(child, body)
            stored[child] = None
            logger.info("deleted kind=%s model=%s", child.kind, key)
        unknown = [child.kind for child in plan if child not in stored]
        note = "; ".join(f"this cluster knows no {kind}, so none is made" for kind in unknown)
        return Outcome(hint, note, memory)

    async def _scale(self, key: Key, stored: Children, replicas: int) -> None:
        """The number of pods does not wait for a spec that is held back: pods of the last good one serve on."""
        live = stored[Child.DEPLOYMENT]
        if live is None or live["spec"]["replicas"] == replicas:
            return
        stored[Child.DEPLOYMENT] = await self._cluster.scale(live, replicas)
        logger.info("scaled the last good spec of model=%s replicas=%d", key, replicas)

    async def _claims(self, key: Key, spec: Spec) -> dict[str, Object]:
        """The claims of the spec that exist; the scheduler tells of one that does not."""
        names = claims_of(spec)
        found = await asyncio.gather(*(self._cluster.claim(key.namespace, name) for name in names))
        return {name: claim for name, claim in zip(names, found, strict=True) if claim is not None}

    async def _report(self, model: Object, seen: Observation, current: Object) -> None:
        """Write status if it differs, and tell the transition as an Event."""
        previous = model.get("status", {})
        meta = model["metadata"]
        key = Key(meta["namespace"], meta["name"])
        self._count(key, next(kind for kind in CONDITIONS if is_true({"status": current}, kind)))
        if current == previous:
            return
        try:
            await self._cluster.apply_status(model, current)
        except NotFound:
            return  # deleted meanwhile
        self._observe_starts(seen, previous)
        ready, old = condition({"status": current}, "Ready"), condition({"status": previous}, "Ready")
        if ready is None or (old is not None and ready["reason"] == old["reason"]):
            return
        if model["spec"].get("pause"):
            return  # an Event is a write
        kind = "Normal" if ready["reason"] in NORMAL else "Warning"
        logger.info("model=%s reason=%s: %s", key, ready["reason"], ready["message"])
        await self._cluster.event(model, kind, ready["reason"], ready["message"], self._now())

    def _observe_starts(self, seen: Observation, previous: Object) -> None:
        """Once per pod: the stored status had it as starting, and the one just written does not."""
        for pod in seen.pods:
            if timeline.has_finished(pod, previous):
                info = seen.told.get(pod["metadata"]["uid"])
                for phase, seconds in timeline.phase_seconds(pod, info).items():
                    self._metrics.cold_start_seconds.labels(phase).observe(seconds)

    def known(self) -> list[Key]:
        """The models that something is remembered of."""
        return list(self._standing)

    def _count(self, key: Key, standing: str | None) -> None:
        if standing is None:
            self._standing.pop(key, None)
        else:
            self._standing[key] = standing
        counts = Counter(self._standing.values())
        for kind in CONDITIONS:
            self._metrics.models.labels(kind).set(counts[kind])


def advice(spec: Object, error: Exception) -> str:
    """What to do about a spec that cannot become pods."""
    is_image = str(spec.get("model", {}).get("source", "")).startswith("oci://")
    if is_image and "must specify a volume type" in str(error):  # an API server drops a field that it does not know
        return "this cluster has no image volumes for a source oci:// (Kubernetes 1.35 has them); use another source"
    return "correct the spec"


def _rest(work: Work) -> str:
    """What a paused model says. Raises Paused if its children are not what its spec says."""
    if kinds := ", ".join(child.kind for child in (*work.apply, *work.delete)):
        raise Paused(f"spec.pause is true, and what differs from the spec is left as it is: {kinds}")
    return "paused: nothing is changed until spec.pause is false"


def parse(spec: Object) -> Spec:
    """Read a stored spec; raises SpecError naming the field."""
    try:
        return Spec.model_validate(spec)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("spec", *first["loc"]))
        value = first["input"]
        told = "" if isinstance(value, dict | list) else f"={str(value)[:100]}"  # never a whole part, with all it holds
        raise SpecError(f"{where}{told}: {first['msg']}") from None
