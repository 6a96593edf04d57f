"""The Job that looks into a model, because the operator cannot: the model's own pod, but for what it runs.

It reads config.json with the runtime's image, volumes, placement and secrets, asks for no GPU, and leaves the answer in
its termination message. Its pod does not carry the model's label: it neither serves nor counts. So the model's
NetworkPolicy does not select it either: until the answer is there, that one is still made for the source of before.
"""

from __future__ import annotations

from minisgl_operator import api
from minisgl_operator.api import Key, Model
from minisgl_operator.build.container import CONTAINER
from minisgl_operator.build.hashing import digest, seal
from minisgl_operator.build.meta import build_metadata
from minisgl_operator.objects import Object, read_annotations

# Of the model's container; probes, ports, GPUs and life cycle are a server's.
KEPT = ("image", "imagePullPolicy", "env", "securityContext", "terminationMessagePolicy", "volumeMounts")
SERVES = ("affinity", "containers", "initContainers", "terminationGracePeriodSeconds", "topologySpreadConstraints")
MODEL_PATH = "--model-path="
# A slow image pull is waited for. A finished Job stays long enough to be read, and a failed one until the next try.
DEADLINE_SECONDS, KEEP_SECONDS = 1800, 120
NAME_LEN = 40  # with the rest at most 63 characters, as a label of its pod may have


def revision_of(model: Model, deployment: Object) -> str:
    """What an answer is remembered under: another source, store or image asks again."""
    store = [] if model.s3 is None else [place for place in (model.s3.endpoint, model.s3.region) if place]
    return digest([model.source, read_annotations(deployment)[api.IMAGE], *store])


def build_inspection(key: Key, uid: str, deployment: Object) -> Object:
    """The Job for a wanted Deployment. Its name is its content's: a Job cannot be changed."""
    template = deployment["spec"]["template"]["spec"]
    server = next(each for each in template["containers"] if each["name"] == CONTAINER)
    path = next(word for word in server["args"] if word.startswith(MODEL_PATH))
    amounts = {"cpu": "1", "memory": "512Mi"}
    container = {name: server[name] for name in KEPT if name in server} | {
        "name": CONTAINER,
        "args": ["inspect", path],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": amounts},
    }
    metadata = build_metadata(key, uid)
    labels = {name: value for name, value in metadata["labels"].items() if name != api.MODEL_LABEL}
    spec: Object = {
        "backoffLimit": 0,
        "activeDeadlineSeconds": DEADLINE_SECONDS,
        "ttlSecondsAfterFinished": KEEP_SECONDS,
        "template": {
            "metadata": {"labels": labels | {"app.kubernetes.io/component": "inspect", api.INSPECTS_LABEL: key.name}},
            "spec": {name: value for name, value in template.items() if name not in SERVES}
            | _affinity(template, key.name)
            | {"restartPolicy": "Never", "containers": [container]},
        },
    }
    metadata["name"] = f"{key.name[:NAME_LEN].rstrip('-')}-inspect-{digest([key.name, spec])[:12]}"
    return seal({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})


def _affinity(template: Object, model: str) -> Object:
    """Nodes as the model's pods want them. To pods not: one that keeps its replicas apart would keep it away from every
    node that has one. But a claim may be usable on the node of the model's pods alone: there, if there is room.
    """
    nodes = template.get("affinity", {}).get("nodeAffinity")
    affinity = {"nodeAffinity": nodes} if nodes else {}
    if any("persistentVolumeClaim" in volume for volume in template["volumes"]):
        term = {"labelSelector": {"matchLabels": {api.MODEL_LABEL: model}}, "topologyKey": "kubernetes.io/hostname"}
        near = {"weight": 100, "podAffinityTerm": term}
        affinity["podAffinity"] = {"preferredDuringSchedulingIgnoredDuringExecution": [near]}
    return {"affinity": affinity} if affinity else {}
