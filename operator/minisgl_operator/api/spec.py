"""`spec`: what a user asks for. Every field's description is what `kubectl explain` prints.

`spec.runtime` is not written here: its schema is derived from `minisgl.args.LaunchArgs`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints
from pydantic.config import JsonDict

from minisgl.plan.device import GPUS
from minisgl_operator.api.cache import Cache
from minisgl_operator.api.extra_args import ExtraArgs
from minisgl_operator.api.model import Model
from minisgl_operator.api.part import Part, rules
from minisgl_operator.api.pod import PodTemplate
from minisgl_operator.api.rollout import Rollout
from minisgl_operator.api.scalar import Quantities, Quantity
from minisgl_operator.api.traffic import Monitoring, NetworkPolicy

# Pods of two kinds behind one Service would answer at two speeds and in two number formats for a whole rollout.
DEVICE_IS_FIXED: JsonDict = {
    "rule": "self == oldSelf",
    "message": "device.type cannot change: replicas of both kinds would answer side by side; make a model of another "
    "name, move its clients, and delete this one",
}
RESOURCE_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"


class Device(Part):
    """What the model runs on."""

    type: Literal["cpu", "cuda"] = Field(
        default="cuda",
        description="cuda: NVIDIA GPUs. cpu: no GPU is asked for. It cannot change.",
        json_schema_extra={"x-kubernetes-validations": [DEVICE_IS_FIXED]},
    )
    resource_name: Annotated[str, StringConstraints(max_length=253, pattern=RESOURCE_PATTERN)] = Field(
        default="nvidia.com/gpu",
        description="Extended resource of one GPU; each pod gets runtime.tensorParallelSize of them.",
    )
    gpu: str | None = Field(
        default=None,
        description=f"Kind of the GPUs: {', '.join(GPUS)}. It places no pod; it tells how much memory there is, so "
        "that what cannot fit is refused before a pod is made. Unset: read from the nodeSelector "
        "nvidia.com/gpu.product, if there is one. Of a part of a GPU (MIG) only memory tells.",
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


# The defaults of `Rollout.limits`, as the API server has to know them.
SURGE, UNAVAILABLE = (
    f"(has(self.rollout) && has(self.rollout.{field}) ? string(self.rollout.{field}) : "
    f"(self.device.type == 'cuda' ? '{cuda}' : '{cpu}'))"
    for field, cuda, cpu in (("maxSurge", 0, 1), ("maxUnavailable", 1, 0))
)
RANKS = "(has(self.runtime) && has(self.runtime.tensorParallelSize) ? self.runtime.tensorParallelSize : 1)"


def _gpus(part: str) -> tuple[str, str, str]:
    """The rule that GPUs in `resources.PART` are as many as ranks."""
    given = f"self.resources.{part}"
    return (
        f"!has(self.resources) || !has({given}) || !(self.device.resourceName in {given}) || "
        f"(self.device.type == 'cuda' && string({given}[self.device.resourceName]) == string({RANKS}))",
        f"resources.{part} must ask for as many device.resourceName as runtime.tensorParallelSize (unset: 1), and for "
        "none with device.type cpu; leave it out, the operator adds it",
        f".resources.{part}",
    )


ImageName = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[A-Za-z0-9][-A-Za-z0-9._:/@]*$")]


class Spec(Part):
    """What is asked for."""

    model_config = rules(
        (
            f"!({SURGE} in ['0', '0%'] && {UNAVAILABLE} in ['0', '0%'])",
            "rollout.maxSurge and rollout.maxUnavailable are both 0, so no pod could ever be replaced; set one of them "
            "to 1 (unset, they are 0 and 1 with device.type cuda, 1 and 0 with cpu)",
            ".rollout",
        ),
        _gpus("limits"),
        _gpus("requests"),
    )

    model: Model = Field(description="Which model is served, and under which name.")
    device: Device = Field(default=Device(), description="What the model runs on.")
    runtime: dict[str, Any] = Field(default={}, description="Launch arguments of the runtime.")
    extra_args: ExtraArgs = Field(
        default=[],
        description="Flags for a runtime image newer than this operator, as --flag or --flag=value. "
        "Flags that have a field in spec.runtime are refused, and so are those that the operator decides.",
    )
    replicas: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=1, description="Number of identical servers behind the Service. 0: none."
    )
    rollout: Rollout = Field(default=Rollout(), description="How pods of an older spec are replaced.")
    image: ImageName | None = Field(
        default=None, description="Image of the runtime. Unset: the operator's default, kept until the spec changes."
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        default=None,
        description="When the image is pulled. Always: at every start of a pod. IfNotPresent: if the node lacks it. "
        "Never: the node must have it. Unset: the operator's default.",
    )
    cache: Cache = Field(default=Cache(), description="Where downloaded weights and compiled kernels are kept.")
    resources: Resources = Field(default=Resources(), description="Requests and limits of the container.")
    pod_template: PodTemplate = Field(
        default=PodTemplate(), description="Additions to the pods, merged as Kubernetes merges pod templates."
    )
    network_policy: NetworkPolicy = Field(
        default=NetworkPolicy(), description="Which connections the pods take and make."
    )
    monitoring: Monitoring = Field(default=Monitoring(), description="Whether Prometheus scrapes the pods.")
    pause: bool = Field(
        default=False,
        description="Leave everything as it is: only the status is written until it is false again. Unset: false.",
    )
