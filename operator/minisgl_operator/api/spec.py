"""`spec`: what a user asks for. Every field's description is what `kubectl explain` prints.

`spec.runtime` is not written here: its schema is derived from `minisgl.args.LaunchArgs`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from minisgl.plan.device import GPUS
from minisgl_operator.api.cache import Cache
from minisgl_operator.api.model import Model
from minisgl_operator.api.part import Name, Part, Quantity

# The API server's own pattern for quantities such as 500m, 2 and 16Gi.
QUANTITY_PATTERN = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)

Quantities = dict[str, Quantity]


class Device(Part):
    """What the model runs on."""

    type: Literal["cpu", "cuda"] = Field(default="cuda", description="cuda: NVIDIA GPUs. cpu: no GPU is asked for.")
    resource_name: Annotated[str, StringConstraints(max_length=253)] = Field(
        default="nvidia.com/gpu",
        description="Extended resource of one GPU; each pod gets runtime.tensorParallelSize of them.",
    )
    gpu: str | None = Field(
        default=None,
        description="Kind of the GPUs. It places no pod; it tells how much memory there is, so that what cannot fit is "
        "refused before a pod is made. Unset: read from the nodeSelector nvidia.com/gpu.product, if there is one.",
        json_schema_extra={"enum": list(GPUS)},
    )
    memory: Quantity | None = Field(
        default=None,
        description="Memory of one GPU, such as 80Gi, where its kind is not listed, as a part of a GPU is not. "
        "It wins over gpu.",
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
    cache: Cache = Field(default=Cache(), description="Where downloaded weights and compiled kernels are kept.")
    resources: Resources = Field(default=Resources(), description="Requests and limits of the container.")
    pod_template: PodTemplate = Field(default=PodTemplate(), description="Additions to the pods.")
