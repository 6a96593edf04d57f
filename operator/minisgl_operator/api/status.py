"""`status`: what the operator has seen. Every field's description is what `kubectl explain` prints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from minisgl import termination
from minisgl.info import EngineFacts
from minisgl_operator.api.part import Part
from minisgl_operator.api.plan import Plan
from minisgl_operator.reasons import Reason


class Condition(Part):
    """One condition, as Kubernetes' kstatus reads it."""

    type: Literal["Ready", "Reconciling", "Stalled"] = Field(
        description="Ready: every wanted replica of the newest spec serves. Reconciling: work is under way. "
        "Stalled: nothing moves until something is changed."
    )
    status: Literal["True", "False"] = Field(description="True or False: whether the condition holds.")
    reason: Annotated[str, StringConstraints(min_length=1, max_length=1024)] = Field(
        description=f"One word for the cause. What the operator sees: {', '.join(Reason)}. What a server ended with: "
        f"{', '.join(termination.Reason)}."
    )
    message: Annotated[str, StringConstraints(min_length=1)] = Field(
        description="What is seen, and after a semicolon what to do next."
    )
    last_transition_time: str = Field(
        description="When status last changed.", json_schema_extra={"format": "date-time"}
    )
    observed_generation: int = Field(description="Value of metadata.generation that was judged.")


def moment(text: str) -> str | None:
    """An optional timestamp, described."""
    found: str | None = Field(default=None, description=text, json_schema_extra={"format": "date-time"})
    return found


class Steps(Part):
    """A pod's start, as far as Kubernetes tells it."""

    pod: str = Field(description="Name of the pod.")
    pod_uid: str = Field(description="Identity of the pod.")
    created: str | None = moment("When the pod was made.")
    scheduled: str | None = moment("When a node was chosen.")
    prepared: str | None = moment("When network and volumes were there; the image is pulled from here on.")
    started: str | None = moment("When the container started.")


class Startup(Steps):
    """How the newest ready pod came up."""

    ready: str | None = moment("When it first answered.")
    seconds: int | None = Field(default=None, description="Seconds from creation of the pod to ready.")
    runtime_seconds: dict[str, float] = Field(
        default={}, description="Seconds from process start to the end of each start phase, as the runtime reports."
    )


class Loading(Part):
    """What the server itself says of its start, asked every 10 seconds."""

    phase: str = Field(description="Start phase, such as import, download, weights, warm-up or first-answer.")
    done: int | None = Field(default=None, description="How much of the phase is done; bytes while weights load.")
    total: int | None = Field(default=None, description="How much there is to do.")
    bytes_per_second: int | None = Field(default=None, description="Pace of the phase, per second.")
    eta_seconds: int | None = Field(default=None, description="Seconds until the phase ends, at this pace.")


class PodStart(Steps):
    """A pod that is on its way."""

    phase: Literal["Scheduling", "Preparing", "Image", "Loading", "Failing", "NotReady"] = Field(
        description="What it waits for. Scheduling: a node. Preparing: network and volumes. Image: the image and init "
        "containers. Loading: the model. Failing: its container ended and waits for another try. NotReady: it served, "
        "and does not answer now."
    )
    restarts: int = Field(default=0, description="How often its container was started again.")
    loading: Loading | None = Field(default=None, description="How far the server is; absent while it does not answer.")


class Launched(Part):
    """What the newest ready pod really runs."""

    image: str = Field(description="Image as the pod names it.")
    image_digest: str = Field(default="", description="Digest that the node resolved it to; empty: not told.")
    args: list[str] = Field(default=[], description="The server's whole command line.")


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
    plan: Plan | None = Field(default=None, description="What was predicted of its memory, and what came true.")
    startup: Startup | None = Field(default=None, description="How the newest ready pod came up.")
    launched: Launched | None = Field(default=None, description="What the newest ready pod really runs.")
    progress: str = Field(default="", description="How far the slowest of the starting pods is.")
    pods: list[PodStart] = Field(default=[], description="Pods that are on their way: the newest 10.")
