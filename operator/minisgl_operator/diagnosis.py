"""Why does a pod not serve? Pure: the pods and the Deployment become one Finding, the most telling one first.

Reads what Kubernetes itself reports (scheduler, kubelet, admission) and the runtime's termination message, which
brings its own next action. Every finding has one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from minisgl import termination
from minisgl.termination import Memory
from minisgl_operator.errors import SILENT_WEBHOOK
from minisgl_operator.objects import Object, condition, is_leaving, is_true, seconds_between
from minisgl_operator.reasons import Finding, Reason

# The third start without success: once is an accident, twice may be a race, three times is a rule.
CRASHES_UNTIL_STALLED = 3
# A server that ran this long was well: what ended it is an accident, however many there were (kubelet's own rule).
WELL_SECONDS = 600

IMAGE_ERRORS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
}
# Between two tries the kubelet says this before the words of the last one; without it, status would change with each.
BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*": ErrImagePull: ')
CONTAINER_ID = re.compile(r' "?[0-9a-f]{64}"?')  # another one at each try
# An older containerd takes an image volume for a folder of the node without a name.
NO_IMAGE_VOLUMES = 'failed to mkdir ""'
CONFIG_ERRORS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
NOISE = re.compile(r"\. (?:no new claims|preemption:|not found)")
DEVICE = re.compile(r"Insufficient ([a-z0-9.-]+/[A-Za-z0-9._-]*[A-Za-z0-9])")  # only devices have a name with a slash
POD_FORBIDDEN = re.compile(r'^pods "[^"]+" is forbidden: ')
SECRETS = "create it in this namespace, or correct spec.model.tokenSecret or spec.model.s3.credentialsSecret"
MISSING = re.compile(r"not found|couldn't find key")


def diagnose(pods: Iterable[Object], deployment: Object | None) -> Finding | None:
    """The worst finding: first one that only a change can mend, then one that waiting may mend.

    A pod that its node ended stays in the list, often for days: it is told of until another has taken its place.
    """
    present = [pod for pod in pods if not is_leaving(pod)]
    alive = [pod for pod in present if pod.get("status", {}).get("phase") != "Failed"]
    wanted = 1 if deployment is None else deployment["spec"]["replicas"]
    told = alive if len(alive) >= wanted else [*alive, *(pod for pod in present if pod not in alive)]
    findings = [found for pod in told if (found := _pod(pod))]
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
        seen = f"pod {name} was ended by its node: {_brief(text)}"
        return Finding(Reason.POD_EVICTED, seen, f"see kubectl describe pod {name}")
    scheduled = condition(pod, "PodScheduled")
    if scheduled is not None and scheduled["status"] == "False":
        return _unscheduled(pod, scheduled.get("message", ""))
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return next((found for each in containers if (found := _container(pod, each))), None)


def _unscheduled(pod: Object, message: str) -> Finding:
    # What preemption and resource claims would not mend either is noise to the reader.
    message = NOISE.split(message)[0].strip().rstrip(".") or "the scheduler has not placed the pod yet"
    if "persistentvolumeclaim" in message and "not found" in message:
        action = "create the claim in this namespace, or correct spec.model.source or spec.cache"
        return Finding(Reason.REFERENCE_NOT_FOUND, message, action)
    if found := DEVICE.search(message):
        # Nodes are not ours to read: how many there are is in the scheduler's words only.
        seen = f"each pod asks for {_asked(pod, found[1])} {found[1]}: {message}"
        action = "free or add devices, or lower replicas or runtime.tensorParallelSize"
        return Finding(Reason.INSUFFICIENT_GPU, seen, action)
    action = f"check resources, nodeSelector and tolerations, or see kubectl describe pod {pod['metadata']['name']}"
    return Finding(Reason.UNSCHEDULABLE, message, action)


def _asked(pod: Object, resource: str) -> int:
    containers = pod.get("spec", {}).get("containers", [])
    return sum(int(each.get("resources", {}).get("limits", {}).get(resource, 0)) for each in containers)


def _container(pod: Object, container: Object) -> Finding | None:
    name = pod["metadata"]["name"]
    waiting = container.get("state", {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    message = _brief(CONTAINER_ID.sub("", BACK_OFF.sub("", message)))
    if reason in IMAGE_ERRORS:
        seen = f"image {_image(pod, container, waiting.get('message', ''))}: {message or reason}"
        action = "check the name, the registry and podTemplate.spec.imagePullSecrets"
        never = reason in ("InvalidImageName", "ErrImageNeverPull")
        return Finding(Reason.IMAGE_PULL_FAILED, seen, action, stalled=never)
    if reason == "CreateContainerConfigError" and MISSING.search(message):
        return Finding(Reason.REFERENCE_NOT_FOUND, message, SECRETS)
    if reason in CONFIG_ERRORS and NO_IMAGE_VOLUMES in message and _volume_images(pod):
        seen = f"the node's container runtime has no image volumes for a source oci:// ({message})"
        action = (
            "use nodes with containerd 2.1 or CRI-O 1.33 or newer (podTemplate.spec.nodeSelector), or another source"
        )
        return Finding(termination.Reason.START_FAILED, seen, action, stalled=True)
    if reason in CONFIG_ERRORS:
        return Finding(termination.Reason.START_FAILED, message or reason, f"see kubectl describe pod {name}")
    states = (container.get("state", {}), container.get("lastState", {}))
    ended = next((state["terminated"] for state in states if "terminated" in state), None)
    if ended is None or container.get("ready"):  # an init container that has done its part, a sidecar that runs again
        return None
    return _ended(pod, container, ended)


def _volume_images(pod: Object) -> list[str]:
    """Images that are mounted as volumes."""
    volumes = pod.get("spec", {}).get("volumes", [])
    return [each["image"]["reference"] for each in volumes if "image" in each]


def _image(pod: Object, container: Object, message: str) -> str:
    """The image that cannot be pulled: the kubelet tells it of the container also when it is a volume's."""
    image: str = container["image"]
    return next((each for each in _volume_images(pod) if f'"{each}"' in message), image)


def _ended(pod: Object, container: Object, ended: Object) -> Finding:
    """What a container's last end tells; it stays the finding until the pod is ready, so that status does not flap."""
    lasted = seconds_between(ended.get("startedAt"), ended.get("finishedAt"))
    was_well = lasted is not None and lasted >= WELL_SECONDS
    often = container.get("restartCount", 0) >= CRASHES_UNTIL_STALLED and not was_well
    if ended.get("reason") == "OOMKilled":
        seen = f"the container needed more memory than its limit{_limit(pod, container)}"
        return Finding(termination.Reason.OUT_OF_MEMORY, seen, Memory.HOST.hint, stalled=not was_well)
    if left := termination.read(ended.get("message", "")):
        which = f"{left.memory.label} is too small: " if left.memory else ""
        cause, stalled = _brief(left.message) or left.reason.means, often or left.reason.is_permanent
        return Finding(left.reason, which + cause, _brief(left.next_action) or left.reason.hint, stalled)
    last_line = _brief(ended.get("message", "").strip().rsplit("\n", 1)[-1])
    name = pod["metadata"]["name"]
    seen = f"the server of pod {name} ended with exit code {ended.get('exitCode')}"
    seen += f": {last_line}" if last_line else ""
    return Finding(Reason.CRASH_LOOP, seen, f"see kubectl logs {name} --previous", stalled=often)


def _limit(pod: Object, container: Object) -> str:
    """` of 300Mi`, if the pod's spec names one."""
    spec = pod.get("spec", {})
    specs = [*spec.get("initContainers", []), *spec.get("containers", [])]
    limits = [each.get("resources", {}).get("limits", {}) for each in specs if each["name"] == container["name"]]
    return f" of {limits[0]['memory']}" if limits and "memory" in limits[0] else ""


def _rejected(deployment: Object) -> Finding | None:
    failure = condition(deployment, "ReplicaFailure")
    if failure is None or failure["status"] != "True":
        return None
    # Each try has another pod name; with it status would change, and be written, at every try.
    return read_admission(POD_FORBIDDEN.sub("", failure.get("message", "")) or "pods are refused")


def read_admission(message: str) -> Finding:
    """What admission says of a pod, or of a child: a quota is full, a webhook does not answer, or a plain no."""
    message = _brief(message)
    if "exceeded quota" in message:
        return Finding(Reason.QUOTA_EXCEEDED, message, "raise the ResourceQuota or ask for less")
    if SILENT_WEBHOOK in message:
        return Finding(Reason.POD_REJECTED, message, "see why that webhook does not answer; it is asked again")
    action = "change what is refused, or the namespace's rules"
    return Finding(Reason.POD_REJECTED, message, action, stalled=True)


def _brief(text: str) -> str:
    text = " ".join(text.split()).rstrip(".;")
    return text if len(text) <= 600 else text[:600] + " ..."
