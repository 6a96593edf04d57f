"""The resource MiniSGLModel as its users write and read it: types, names, labels. The API is this file.

Every field's description is what `kubectl explain` prints. `spec.runtime` is not written here: its schema is derived
from `minisgl.args.LaunchArgs`. Knows nothing of Deployments, kopf or HTTP.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from minisgl.info import EngineFacts

GROUP = "minisgl.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "MiniSGLModel"
PLURAL = "minisglmodels"
FIELD_MANAGER = "minisgl-operator"

# A pod is named <model>-<10 characters>-<5 characters>, and its hostname may have 63 characters.
MAX_NAME_LEN = 52

# Labels. MODEL carries the model's name on every child and is the selector of its Deployment and Service.
MODEL_LABEL = f"{GROUP}/model"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"

# Annotations on the Deployment and its pods; what they are for stands in `build`.
APPLIED_HASH = f"{GROUP}/applied-hash"
SPEC_HASH = f"{GROUP}/spec-hash"
TEMPLATE_HASH = f"{GROUP}/template-hash"
IMAGE = f"{GROUP}/image"

SOURCE_PATTERN = (
    r"^(pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[A-Za-z0-9_][A-Za-z0-9._-]*)*"
    r"|hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9][A-Za-z0-9._/-]*)?)$"
)
# The API server's own pattern for quantities such as 500m, 2 and 16Gi.
QUANTITY_PATTERN = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)

Name = Annotated[str, StringConstraints(min_length=1, max_length=253)]
Quantity = int | str
Quantities = dict[str, Quantity]


class Key(NamedTuple):
    """Which model: the unit of work."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Part(BaseModel):
    """Base of every part: camelCase in JSON, immutable.

    Unknown fields are refused by the API server. Here they are ignored, so that an operator older than the CRD works.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class TokenSecret(Part):
    """A key of a Secret in the model's namespace."""

    name: Name = Field(description="Name of the Secret.")
    key: Name = Field(default="token", description="Key within the Secret.")


class Model(Part):
    """Which model is served, and under which name."""

    source: Annotated[str, StringConstraints(max_length=512, pattern=SOURCE_PATTERN)] = Field(
        description="Where the model lies: pvc://<claim>/<path> for a volume in this namespace, or "
        "hf://<org>/<name>[@<revision>] for the Hugging Face hub. A change replaces the pods."
    )
    served_name: Annotated[str, StringConstraints(max_length=253, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")] | None = (
        Field(default=None, description="Model name that clients ask for. Unset: the name of this object.")
    )
    token_secret: TokenSecret | None = Field(
        default=None,
        description="Hugging Face token, given to the pods as HF_TOKEN. The operator never reads the Secret.",
    )


class Device(Part):
    """What the model runs on."""

    type: Literal["cpu", "cuda"] = Field(default="cuda", description="cuda: NVIDIA GPUs. cpu: no GPU is asked for.")
    resource_name: Annotated[str, StringConstraints(max_length=253)] = Field(
        default="nvidia.com/gpu",
        description="Extended resource of one GPU; each pod gets runtime.tensorParallelSize of them.",
    )


class Resources(Part):
    """Requests and limits of the container, beside the GPUs that `device` asks for."""

    requests: Quantities = Field(default={}, description="What the node must have free, such as cpu and memory.")
    limits: Quantities = Field(default={}, description="What the container may use at most.")


class PodMetadata(Part):
    """Labels and annotations added to the pods."""

    labels: dict[str, str] = Field(default={}, description="More labels for the pods; the operator's own win.")
    annotations: dict[str, str] = Field(default={}, description="More annotations for the pods.")


class Toleration(Part):
    """One toleration of the pods."""

    key: str | None = Field(default=None, description="Taint key; empty with operator Exists matches every taint.")
    operator: Literal["Equal", "Exists"] | None = Field(default=None, description="How value is compared.")
    value: str | None = Field(default=None, description="Taint value for operator Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Taint effect; empty matches all."
    )
    toleration_seconds: int | None = Field(default=None, description="With effect NoExecute: seconds until eviction.")


class PullSecret(Part):
    """Reference to a registry Secret."""

    name: Name = Field(description="Name of the Secret in this namespace.")


class PodSpec(Part):
    """The parts of the pods that a model's author may choose: an allow-list, so that no pod gains privileges."""

    node_selector: dict[str, str] = Field(default={}, description="Labels the node must have.")
    tolerations: list[Toleration] = Field(default=[], description="Taints the pods accept.")
    runtime_class_name: Name | None = Field(
        default=None, description="Container runtime class, such as nvidia. Unset: the operator's default."
    )
    priority_class_name: Name | None = Field(default=None, description="Priority of the pods.")
    image_pull_secrets: list[PullSecret] = Field(default=[], description="Secrets for pulling the image.")


class PodTemplate(Part):
    """Additions to the pods."""

    metadata: PodMetadata = Field(default=PodMetadata(), description="Labels and annotations of the pods.")
    spec: PodSpec = Field(default=PodSpec(), description="Placement of the pods.")


class Spec(Part):
    """What is asked for."""

    model: Model = Field(description="Which model is served, and under which name.")
    device: Device = Field(default=Device(), description="What the model runs on.")
    runtime: dict[str, Any] = Field(default={}, description="Launch arguments of the runtime.")
    replicas: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=1, description="Number of identical servers behind the Service. 0: none."
    )
    image: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = Field(
        default=None, description="Image of the runtime. Unset: the operator's default, kept until the spec changes."
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        default=None, description="When the image is pulled. Unset: the operator's default."
    )
    resources: Resources = Field(default=Resources(), description="Requests and limits of the container.")
    pod_template: PodTemplate = Field(default=PodTemplate(), description="Additions to the pods.")


class Condition(Part):
    """One condition, as Kubernetes' kstatus reads it."""

    type: Literal["Ready", "Reconciling", "Stalled"] = Field(
        description="Ready: every wanted replica of the newest spec serves. Reconciling: work is under way. "
        "Stalled: nothing moves until something is changed."
    )
    status: Literal["True", "False", "Unknown"] = Field(description="Whether the condition holds.")
    reason: Annotated[str, StringConstraints(min_length=1, max_length=1024)] = Field(
        description="One word for the cause; the operator's README lists them."
    )
    message: str = Field(description="What is seen, and what to do next.")
    last_transition_time: str = Field(
        description="When status last changed.", json_schema_extra={"format": "date-time"}
    )
    observed_generation: int = Field(description="metadata.generation that was judged.")


class Startup(Part):
    """How the newest ready pod came up."""

    pod: str = Field(description="Name of the pod.")
    pod_uid: str = Field(description="Identity of the pod.")
    scheduled: str | None = Field(
        default=None, description="When a node was chosen.", json_schema_extra={"format": "date-time"}
    )
    started: str | None = Field(
        default=None, description="When the container started.", json_schema_extra={"format": "date-time"}
    )
    ready: str | None = Field(
        default=None, description="When it first answered.", json_schema_extra={"format": "date-time"}
    )
    seconds: int | None = Field(default=None, description="Seconds from creation of the pod to ready.")
    runtime_seconds: dict[str, float] = Field(
        default={}, description="Seconds from process start to the end of each start phase, as the runtime reports."
    )


class Status(Part):
    """What is seen."""

    conditions: list[Condition] = Field(default=[], description="Ready, Reconciling and Stalled.")
    observed_generation: int = Field(
        default=-1, description="Generation of the spec that this status describes; -1 before the first look."
    )
    replicas: int = Field(default=0, description="Pods that exist.")
    ready_replicas: int = Field(default=0, description="Pods that serve.")
    updated_replicas: int = Field(default=0, description="Pods made from the newest spec.")
    available: str = Field(default="", description="Ready and wanted replicas, such as 1/2.")
    selector: str = Field(default="", description="Label selector of the pods, for the scale subresource.")
    url: str = Field(default="", description="Base URL for OpenAI clients within the cluster.")
    backend: str = Field(default="", description="Attention kernels that the engine chose.")
    engine: EngineFacts | None = Field(default=None, description="What the engine decided at start.")
    startup: Startup | None = Field(default=None, description="How the newest ready pod came up.")


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
