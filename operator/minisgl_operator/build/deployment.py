"""The Deployment around the pod template: how many, which image, how they are replaced.

A changed byte in the template restarts every model of every user, so `pod` and `container` change with care: the
golden files in the tests are the contract between releases.
"""

from __future__ import annotations

from minisgl_operator import api
from minisgl_operator.api import Key, Spec
from minisgl_operator.build.hashing import digest
from minisgl_operator.build.meta import build_metadata
from minisgl_operator.build.pod import build_pod
from minisgl_operator.objects import Object, read_annotations
from minisgl_operator.settings import Settings

# 140 GB at 50 MB/s take 47 minutes. Past it, a server that still advances is not called stalled.
PROGRESS_DEADLINE_SECONDS = 3900
# Fields that make no pod another one: a change of them must not take a newer image either.
BESIDE_THE_PODS = {"replicas", "rollout", "network_policy", "monitoring", "pause"}


def build_deployment(key: Key, uid: str, spec: Spec, settings: Settings, live: Object | None) -> Object:
    """The wanted Deployment. `live` is the one in the cluster, if any. Raises SpecError."""
    spec_hash = _hash_of_pods(spec)
    image = spec.image or _image_in_use(live, spec_hash) or settings.runtime_image
    template = build_pod(key, spec, settings, image)
    template_hash = digest(template)
    template["metadata"]["annotations"][api.TEMPLATE_HASH] = template_hash
    metadata = build_metadata(key, uid)
    metadata["annotations"] = {api.SPEC_HASH: spec_hash, api.TEMPLATE_HASH: template_hash, api.IMAGE: image}
    surge, unavailable = spec.rollout.limits(spec.device.type)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": spec.replicas,
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": spec.rollout.progress_deadline_seconds or PROGRESS_DEADLINE_SECONDS,
            "selector": {"matchLabels": api.selector(key.name)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable},
            },
            "template": template,
        },
    }


def _hash_of_pods(spec: Spec) -> str:
    """Of the fields that pods are made of. What is said of a GPU's memory is for the plan alone."""
    device = spec.device.model_copy(update={"gpu": None, "memory": None})
    pods = spec.model_copy(update={"device": device})
    return digest(pods.model_dump(by_alias=True, exclude=BESIDE_THE_PODS, exclude_defaults=True))


def _image_in_use(live: Object | None, spec_hash: str) -> str | None:
    """The image that this same spec already runs on: a newer operator must not restart models nobody touched."""
    annotations = {} if live is None else read_annotations(live)
    return annotations.get(api.IMAGE) if annotations.get(api.SPEC_HASH) == spec_hash else None
