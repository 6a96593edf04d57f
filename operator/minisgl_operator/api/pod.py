"""`spec.podTemplate`: what a model's author may add to the pods, merged as Kubernetes merges pod templates.

An allow-list of exact fields: whatever could give a pod privileges (volumes, security contexts, host namespaces, other
identities) has no field here. The API server refuses it by name where the client asks for strict validation, as kubectl
does, and drops it otherwise: it reaches no pod either way.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from minisgl_operator.api.part import Part, merged_by, rules
from minisgl_operator.api.placement import SPREAD_KEYS, Affinity, Spread, Toleration
from minisgl_operator.api.scalar import Annotations, DataKey, Labels, Name

# Set by the operator in every pod, or by what the spec says elsewhere. One list for the CEL rule and for the build.
DECIDED_ENV = ("HOME", "HF_HOME", "HF_TOKEN")


class PodMetadata(Part):
    """Labels and annotations added to the pods."""

    labels: Labels = Field(default={}, description="More labels for the pods; the operator's own win.")
    annotations: Annotations = Field(default={}, description="More annotations for the pods; the operator's own win.")


class KeyRef(Part):
    """A key of a Secret or ConfigMap in the model's namespace."""

    name: Name = Field(description="Name of the Secret or ConfigMap.")
    key: DataKey = Field(description="Key within it whose value is taken.")
    optional: bool = Field(default=False, description="Start without the variable if name or key is missing.")


class EnvSource(Part):
    """Where a variable's value is read from when the container starts."""

    model_config = rules(
        (
            "has(self.secretKeyRef) != has(self.configMapKeyRef)",
            "valueFrom takes exactly one of secretKeyRef and configMapKeyRef",
        )
    )

    secret_key_ref: KeyRef | None = Field(
        default=None, description="A key of a Secret, which the operator never reads."
    )
    config_map_key_ref: KeyRef | None = Field(default=None, description="A key of a ConfigMap in this namespace.")


class EnvVar(Part):
    """One environment variable of the container."""

    model_config = rules(
        ("!(has(self.value) && has(self.valueFrom))", "a variable takes value or valueFrom, not both"),
        (
            f"!(self.name in {list(DECIDED_ENV)})",
            f"name may not be {', '.join(DECIDED_ENV)}: the operator decides them (a token: spec.model.tokenSecret)",
        ),
    )

    name: Annotated[str, StringConstraints(max_length=253, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = Field(
        description="Name of the variable, such as HTTPS_PROXY."
    )
    value: Annotated[str, StringConstraints(max_length=32768)] | None = Field(
        default=None, description="Value as plain text. Secrets belong into valueFrom."
    )
    value_from: EnvSource | None = Field(default=None, description="Secret or ConfigMap that holds the value.")


class ContainerPatch(Part):
    """What is merged into a container of the pods."""

    name: Literal["minisgl"] = Field(description="minisgl: the container that serves the model.")
    env: Annotated[list[EnvVar], Field(max_length=64)] = Field(
        default=[],
        description="Environment variables beside those the operator decides.",
        json_schema_extra=merged_by("name"),
    )


class PullSecret(Part):
    """Reference to a registry Secret."""

    name: Name = Field(description="Name of the Secret in this namespace.")


class PodSpec(Part):
    """The parts of the pods that a model's author may choose."""

    node_selector: Labels = Field(default={}, description="Labels that a node must have.")
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = Field(
        default=[], description="Taints that the pods accept."
    )
    affinity: Affinity | None = Field(default=None, description="Attraction of the pods to nodes and other pods.")
    topology_spread_constraints: Annotated[list[Spread], Field(max_length=16)] = Field(
        default=[],
        description="How evenly the pods are spread over nodes or zones.",
        json_schema_extra=SPREAD_KEYS,
    )
    runtime_class_name: Name | None = Field(
        default=None, description="Container runtime class, such as nvidia. Unset: the operator's default."
    )
    priority_class_name: Name | None = Field(default=None, description="Name of the PriorityClass of the pods.")
    scheduler_name: Name | None = Field(
        default=None, description="Scheduler that places the pods. Unset: the cluster's own."
    )
    image_pull_secrets: Annotated[list[PullSecret], Field(max_length=16)] = Field(
        default=[],
        description="Registry Secrets for pulling the image.",
        json_schema_extra=merged_by("name"),
    )
    containers: Annotated[list[ContainerPatch], Field(max_length=1)] = Field(
        default=[],
        description="Environment for the serving container, merged into it by name.",
        json_schema_extra=merged_by("name"),
    )


class PodTemplate(Part):
    """Additions to the pods."""

    metadata: PodMetadata = Field(default=PodMetadata(), description="Labels and annotations of the pods.")
    spec: PodSpec = Field(default=PodSpec(), description="Placement, pull Secrets and environment of the pods.")

    @property
    def env(self) -> list[EnvVar]:
        """Variables for the serving container."""
        return [each for container in self.spec.containers for each in container.env]
