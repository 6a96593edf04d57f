"""Why does a pod not serve? Pure: the pods and the Deployment become one Finding, the most telling one first.

Reads what Kubernetes itself reports (scheduler, kubelet, admission) and the runtime's termination message. Every
message ends with what to do next.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from minisgl import termination
from minisgl_operator.build.container import CONTAINER
from minisgl_operator.objects import Object, condition, is_leaving, is_true, seconds_between
from minisgl_operator.reasons import Finding, Reason

# The third start without success: once is an accident, twice may be a race, three times is a rule.
CRASHES_UNTIL_STALLED = 3
# A server that ran this long was well: what ended it is an accident, however many there were (kubelet's own rule).
WELL_SECONDS = 600

IMAGE_ERRORS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
CONFIG_ERRORS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
NOISE = re.compile(r"\. (?:no new claims|preemption:|not found)")
POD_FORBIDDEN = re.compile(r'^pods "[^"]+" is forbidden: ')
MISSING = re.compile(r"not found|couldn't find key")

NEXT = {
    termination.Reason.INVALID_ARGUMENTS: "correct spec.runtime",
    termination.Reason.MODEL_NOT_FOUND: "check spec.model.source and what lies there",
    termination.Reason.ACCESS_DENIED: "check the Secret that spec.model.tokenSecret or spec.model.s3.credentialsSecret "
    "names, and what its owner may read",
    termination.Reason.STORAGE_FULL: "raise spec.cache.sizeLimit or the size of the claim in spec.cache",
    termination.Reason.MODEL_LOAD_FAILED: "check the model's files",
    termination.Reason.UNSUPPORTED_MODEL: "choose a supported model or a newer image",
    termination.Reason.OUT_OF_MEMORY: "lower runtime.memoryRatio, or give more memory or a larger "
    "runtime.tensorParallelSize",
    termination.Reason.DEVICE_UNAVAILABLE: "check device.type, podTemplate.spec.runtimeClassName and the node's driver",
    termination.Reason.ADDRESS_IN_USE: "check what else listens in the pod",
    termination.Reason.CHILD_DIED: "see kubectl logs --previous",
    termination.Reason.START_FAILED: "see kubectl logs --previous",
}


def diagnose(pods: Iterable[Object], deployment: Object | None) -> Finding | None:
    """The worst finding: first one that only a change can mend, then one that waiting may mend."""
    findings = [found for pod in pods if not is_leaving(pod) and (found := _pod(pod))]
    if deployment is not None and (found := _rejected(deployment)):
        findings.append(found)
    return min(findings, key=lambda each: not each.stalled, default=None)


def _pod(pod: Object) -> Finding | None:
    name = pod["metadata"]["name"]
    status = pod.get("status", {})
    if is_true(pod, "Ready"):
        return None
    if status.get("phase") == "Failed":
        text = status.get("message") or status.get("reason") or "no reason given"
        return Finding(Reason.POD_EVICTED, f"pod {name} was ended by its node: {text}; see kubectl describe pod {name}")
    scheduled = condition(pod, "PodScheduled")
    if scheduled is not None and scheduled["status"] == "False":
        return _unscheduled(name, scheduled.get("message", ""))
    containers = status.get("containerStatuses", [])
    container = next((each for each in containers if each["name"] == CONTAINER), None)
    return None if container is None else _container(name, container)


def _unscheduled(pod: str, message: str) -> Finding:
    # What preemption and resource claims would not mend either is noise to the reader.
    message = NOISE.split(message)[0].strip().rstrip(".")
    if "persistentvolumeclaim" in message and "not found" in message:
        text = f"{message}; create the claim in this namespace or correct spec.model.source or spec.cache"
        return Finding(Reason.REFERENCE_NOT_FOUND, text)
    if re.search(r"Insufficient \S*gpu", message, re.IGNORECASE):
        text = f"{message}; free or add GPUs, or lower replicas or runtime.tensorParallelSize"
        return Finding(Reason.INSUFFICIENT_GPU, text)
    text = f"{message}; check resources, nodeSelector and tolerations, or see kubectl describe pod {pod}"
    return Finding(Reason.UNSCHEDULABLE, text)


def _container(pod: str, container: Object) -> Finding | None:
    waiting = container.get("state", {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in IMAGE_ERRORS:
        text = f"image {container['image']}: {_brief(message) or reason}; check the name, the registry and "
        text += "podTemplate.spec.imagePullSecrets"
        return Finding(Reason.IMAGE_PULL_FAILED, text, stalled=reason in ("InvalidImageName", "ErrImageNeverPull"))
    if reason in CONFIG_ERRORS and MISSING.search(message):
        text = f"{_brief(message)}; create it in this namespace or correct spec.model.tokenSecret or "
        text += "spec.model.s3.credentialsSecret"
        return Finding(Reason.REFERENCE_NOT_FOUND, text)
    if reason in CONFIG_ERRORS:
        text = f"{_brief(message)}; see kubectl describe pod {pod}"
        return Finding(termination.Reason.START_FAILED, text)
    states = (container.get("state", {}), container.get("lastState", {}))
    ended = next((state["terminated"] for state in states if "terminated" in state), None)
    return None if ended is None else _ended(pod, ended, container.get("restartCount", 0))


def _ended(pod: str, ended: Object, restarts: int) -> Finding:
    """What a container's last end tells; it stays the finding until the pod is ready, so that status does not flap."""
    lasted = seconds_between(ended.get("startedAt"), ended.get("finishedAt"))
    was_well = lasted is not None and lasted >= WELL_SECONDS
    if ended.get("reason") == "OOMKilled":
        text = "the container needed more memory than its limit; raise resources.limits.memory or shrink the cache "
        return Finding(Reason.OUT_OF_MEMORY, text + "(runtime.numTokens)", stalled=not was_well)
    often = restarts >= CRASHES_UNTIL_STALLED and not was_well
    left = termination.read(ended.get("message", ""))
    if left is not None:
        text = f"{_brief(left.message)}; {NEXT[left.reason]}"
        return Finding(left.reason, text, stalled=often or left.reason in termination.PERMANENT)
    last_line = _brief(ended.get("message", "").strip().rsplit("\n", 1)[-1])
    text = f"the server of pod {pod} ended with exit code {ended.get('exitCode')}"
    text += f": {last_line}" if last_line else ""
    return Finding(Reason.CRASH_LOOP, f"{text}; see kubectl logs {pod} --previous", stalled=often)


def _rejected(deployment: Object) -> Finding | None:
    failure = condition(deployment, "ReplicaFailure")
    if failure is None or failure["status"] != "True":
        return None
    # Each try has another pod name; with it status would change, and be written, at every try.
    message = _brief(POD_FORBIDDEN.sub("", failure.get("message", "")))
    if "exceeded quota" in message:
        return Finding(Reason.QUOTA_EXCEEDED, f"{message}; raise the ResourceQuota or ask for less")
    return Finding(Reason.POD_REJECTED, f"{message}; change what is refused, or the namespace's rules", stalled=True)


def _brief(text: str) -> str:
    text = " ".join(text.split()).rstrip(".;")
    return text if len(text) <= 600 else text[:600] + " ..."
