"""Names that the whole operator shares: the resource's own, labels, annotations, the model's key.

Labels and annotations are API: selectors, dashboards and other tools match on them.
"""

from __future__ import annotations

from typing import NamedTuple

GROUP = "minisgl.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "MiniSGLModel"
PLURAL = "minisglmodels"
FIELD_MANAGER = "minisgl-operator"

# A ReplicaSet is named <model>-<10 characters>: 63. Of that its pods' names keep 58 and add 5, as a hostname may have.
MAX_NAME_LEN = 52

# Labels. MODEL carries the model's name on every child and is the selector of its Deployment and Service.
MODEL_LABEL = f"{GROUP}/model"
# On the pods that look into a model before it is served: never MODEL, so they neither serve nor count.
INSPECTS_LABEL = f"{GROUP}/inspects"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"

# Annotations on the Deployment and its pods; what they are for stands in `build`.
APPLIED_HASH = f"{GROUP}/applied-hash"
SPEC_HASH = f"{GROUP}/spec-hash"
TEMPLATE_HASH = f"{GROUP}/template-hash"
IMAGE = f"{GROUP}/image"


class Key(NamedTuple):
    """Which model: the unit of work."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def labels(name: str) -> dict[str, str]:
    """The labels of every child of model `name`. No version among them: it would roll pods on an upgrade."""
    return {
        "app.kubernetes.io/name": "minisgl-model",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/component": "server",
        "app.kubernetes.io/part-of": "minisgl",
        MANAGED_BY_LABEL: FIELD_MANAGER,
        MODEL_LABEL: name,
    }


def selector(name: str) -> dict[str, str]:
    """What selects the pods of model `name`. A Deployment's selector is immutable: keep it to one stable label."""
    return {MODEL_LABEL: name}


def url(key: Key) -> str:
    """Base URL that an OpenAI client within the cluster uses."""
    return f"http://{key.name}.{key.namespace}.svc/v1"
