"""Asks a model for its shape by a Job, once per revision, and holds its Deployment back until the answer allows it.

What is known stands in `status.plan`: an idle operator writes nothing, and a restart asks nothing. Where no answer can
come (an image without `inspect`, a Job without a pod, no Job at all) the Deployment is made, and its own pods tell why.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import ValidationError

from minisgl import termination
from minisgl.plan.inspection import Inspection, Report
from minisgl_operator import api
from minisgl_operator.answers import Answers
from minisgl_operator.api import Key, Spec
from minisgl_operator.build.container import CONTAINER
from minisgl_operator.build.inspect import build_inspection, revision_of
from minisgl_operator.cluster import Cluster
from minisgl_operator.diagnosis import diagnose
from minisgl_operator.errors import OperatorError, Refused, Rejected
from minisgl_operator.fit import foresee
from minisgl_operator.objects import Object, condition, is_leaving, is_true, read_annotations
from minisgl_operator.reasons import Finding, Reason

logger = logging.getLogger(__name__)

# The Job controller makes a pod at once; where it may not (quota, admission), the Deployment's pods will say so.
WITHOUT_POD_SECONDS = 10
REMEMBERED = ("revision", "modelRevision", "model")  # the rest of `status.plan` follows from the spec
LOOK_AGAIN_SECONDS = WITHOUT_POD_SECONDS + 1.0
# What a pod of the model would end with as its Job's did. Nobody who serves makes way for it.
SURE = (Reason.IMAGE_PULL_FAILED, Reason.REFERENCE_NOT_FOUND, termination.Reason.START_FAILED)


class Held(OperatorError):
    """The Deployment is not made or changed now. `plan` is what is known so far. No event tells that no pod comes,
    so it is looked at again.
    """

    def __init__(self, finding: Finding, plan: Object, look_again_seconds: float | None = None) -> None:
        super().__init__(finding.message)
        self.finding = finding
        self.plan = plan
        self.look_again_seconds = look_again_seconds


@dataclass(frozen=True)
class Answer:
    """What came of a Job: a report, a finding that holds the model back, or neither, when no answer can come."""

    report: Report | None = None
    finding: Finding | None = None
    is_final: bool = True


class Foresight:
    """The plan of one model in one reconcile. `known` is its `status.plan`, `wanted` the Deployment to be."""

    def __init__(self, cluster: Cluster, answers: Answers, model: Object, spec: Spec, wanted: Object, now: str) -> None:
        meta = model["metadata"]
        self._answers = answers
        self.key, self._uid, self._model = Key(meta["namespace"], meta["name"]), meta["uid"], model
        self._cluster, self._spec, self._wanted, self._now = cluster, spec, wanted, now
        revision = revision_of(spec.model, wanted)
        known: Object = model.get("status", {}).get("plan") or {}
        is_usable = known.get("revision") == revision and _is_readable(known)
        self._known: Object = known if is_usable else {"revision": revision}

    async def admit(self, live: Object | None, *, may_ask: bool = True) -> Object:
        """The plan, if the wanted Deployment may take the place of `live`; else raises Held.

        `may_ask`: a Job's pod could run; where it could not, the model's pods themselves tell. Pods that are there
        already are never judged: only another template is.
        """
        changes = live is None or _template(live) != _template(self._wanted)
        if changes and may_ask and "model" not in self._known:
            await self._ask(has_pods=live is not None)
        if "model" not in self._known:
            return self._known
        figures, finding = foresee(self.key, self._spec, Inspection.model_validate(self._known["model"]))
        plan: Object = {name: self._known[name] for name in REMEMBERED if name in self._known}
        plan |= figures
        if finding is not None and changes:
            if live is not None:
                finding = replace(finding, seen=f"{finding.seen} (pods of the last good spec are left alone)")
            raise Held(finding, plan)
        return plan

    async def _ask(self, has_pods: bool) -> None:
        """Put the model's shape into what is known; raises Held while it is not, unless no answer can come.

        `has_pods`: those of the last good spec would have to make way.
        """
        if recent := self._answers.find(self.key.namespace, self._known["revision"]):
            return await self._keep(recent)
        job = build_inspection(self.key, self._uid, self._wanted)
        name = job["metadata"]["name"]
        stored = await self._cluster.job(self.key.namespace, name)
        if stored is None:
            logger.info("inspect model=%s job=%s", self.key, name)
            try:
                stored = await self._cluster.start_job(job)
            except (Refused, Rejected) as error:  # by a quota or a policy for Jobs; what concerns the pods they tell
                logger.warning("inspect model=%s: %s", self.key, error)
                return None
        pods = [pod for pod in await self._cluster.inspecting(self.key) if _job_of(pod) == name]
        answer = read_answer(stored, pods, self._now)
        if answer.report is not None:
            report = answer.report.model_dump(by_alias=True, mode="json", exclude_defaults=True)
            known = {"revision": self._known["revision"], "model": report["model"]}
            if "revision" in report:
                known["modelRevision"] = report["revision"]
            self._answers.keep(self.key.namespace, known)
            return await self._keep(known)
        if answer.finding is not None:
            self._hold(answer)
        elif has_pods and _has_failed(stored) and (found := self._told_before()):
            raise Held(found, self._known, LOOK_AGAIN_SECONDS)  # its time is over; the next Job tries again
        return None

    async def _keep(self, known: Object) -> None:
        """Store an answer before it is acted upon: once the Deployment is there, nobody asks again."""
        self._known = known
        status = self._model.get("status", {}) | {"plan": known}
        stored = await self._cluster.apply_status(self._model, status)
        self._model |= {"metadata": stored["metadata"], "status": status}

    def _told_before(self) -> Finding | None:
        """What status says of a Job whose pod is gone, if a pod of the model would fare alike."""
        ready = condition(self._model, "Ready")
        if ready is None or ready["reason"] not in SURE:
            return None
        return Finding(ready["reason"], ready["message"], stalled=is_true(self._model, "Stalled"))

    def _hold(self, answer: Answer) -> None:
        found, known = answer.finding, self._known.get("problem")
        assert found is not None
        if answer.is_final:
            problem = {"reason": str(found.reason), "message": found.seen, "action": found.action}
            raise Held(found, {"revision": self._known["revision"], "problem": problem})
        if known is not None and found.reason == Reason.INSPECTING:
            # It is tried again, in case that the model was put there meanwhile: until then nothing has changed.
            found = Finding(known["reason"], known["message"], known["action"], stalled=True)
        raise Held(found, self._known, LOOK_AGAIN_SECONDS)


def read_answer(job: Object, pods: list[Object], now: str) -> Answer:
    """What a Job and its pods tell."""
    for pod in pods:
        ended = _ended(pod)
        if ended is None:
            continue
        if ended.get("exitCode") == 0:
            try:
                report = Report.model_validate_json(ended.get("message", ""))
            except ValidationError:
                logger.warning(
                    "inspect pod=%s ended well but told no shape that is understood", pod["metadata"]["name"]
                )
                return Answer()
            return Answer(report=report) if _is_plausible(report.model) else Answer()
        left = termination.read(ended.get("message", ""))
        # An image that knows no `inspect` calls it a wrong argument; what may pass is the pods' own business.
        if left is None or not left.reason.is_permanent or left.reason is termination.Reason.INVALID_ARGUMENTS:
            return Answer()
        return Answer(finding=Finding(left.reason, left.message.rstrip(".;"), left.next_action, stalled=True))
    alive = [pod for pod in pods if not is_leaving(pod)]
    if _has_failed(job):
        return Answer()
    if not alive and _age(job, now) > WITHOUT_POD_SECONDS:
        return Answer()
    waiting = Finding(Reason.INSPECTING, "a short Job reads the model's config.json", "wait")
    return Answer(finding=diagnose(alive, None) or waiting, is_final=False)


def _is_plausible(model: Inspection) -> bool:
    """Whether a plan can be made with it. Any image may answer, and a plan counts through heads and layers."""
    counts = [model.num_heads, model.num_kv_heads, model.num_layers]
    sizes = [model.head_dim, model.hidden_size, model.vocab_size, model.context_length]
    experts = [] if model.experts is None else [model.experts.num, model.experts.num_layers]
    return all(0 < each <= 2**14 for each in (*counts, *experts)) and all(0 < each < 2**31 for each in sizes)


def _is_readable(known: Object) -> bool:
    """Whether a shape in status is one that this operator understands: it may be another release's, or cut by a
    definition that knows less. Then it is asked for anew.
    """
    try:
        return "model" not in known or _is_plausible(Inspection.model_validate(known["model"]))
    except ValidationError:
        return False


def _has_failed(job: Object) -> bool:
    return is_true(job, "Failed")


def _ended(pod: Object) -> Object | None:
    containers = pod.get("status", {}).get("containerStatuses", [])
    states = [each.get("state", {}) for each in containers if each["name"] == CONTAINER]
    found: Object | None = states[0].get("terminated") if states else None
    return found


def _job_of(pod: Object) -> str | None:
    owners = pod["metadata"].get("ownerReferences", [])
    return next((each["name"] for each in owners if each["kind"] == "Job"), None)


def _template(deployment: Object) -> str | None:
    return read_annotations(deployment).get(api.TEMPLATE_HASH)


def _age(job: Object, now: str) -> float:
    created = job["metadata"].get("creationTimestamp")
    return (datetime.fromisoformat(now) - datetime.fromisoformat(created)).total_seconds() if created else 0.0
