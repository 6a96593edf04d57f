"""`status`: what the operator has seen. Every field's description is what `kubectl explain` prints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from minisgl.info import EngineFacts
from minisgl_operator.api.part import Part


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
