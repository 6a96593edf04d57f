"""Where pods may run: tolerations, affinity and spread, in Kubernetes' own words and shapes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from minisgl_operator.api.part import Part, merged_by, rules
from minisgl_operator.api.scalar import LabelKey, Name
from minisgl_operator.api.select import LabelSelector

Weight = Annotated[int, Field(ge=1, le=100)]
TaintValue = Annotated[str, StringConstraints(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]


class Toleration(Part):
    """One toleration of the pods."""

    model_config = rules(
        (
            "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
            "a toleration without key matches every taint; say so with operator Exists, or give key",
        ),
        (
            "!(has(self.value) && has(self.operator) && self.operator == 'Exists')",
            "value has no meaning with operator Exists; leave value out, or use operator Equal",
        ),
        (
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds needs effect NoExecute: only that one evicts",
        ),
    )

    key: LabelKey | None = Field(default=None, description="Key of the taint. Unset, with operator Exists: any taint.")
    operator: Literal["Equal", "Exists"] | None = Field(
        default=None, description="Equal: key and value must be the taint's. Exists: the key alone. Unset: Equal."
    )
    value: TaintValue | None = Field(default=None, description="Value of the taint, with operator Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None,
        description="NoSchedule: new pods are kept away. PreferNoSchedule: if another node will do. NoExecute: "
        "running pods are evicted. Unset: all effects are tolerated.",
    )
    toleration_seconds: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Seconds until eviction, with effect NoExecute. Unset: never evicted."
    )


class NodeRequirement(Part):
    """One condition on a node."""

    key: LabelKey = Field(description="Key of the node's label, or metadata.name in matchFields.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        description="In: the label has one of values. NotIn: none of them. Exists: the label is there. DoesNotExist: "
        "it is not. Gt: it is a greater number than the one value. Lt: a smaller one."
    )
    values: Annotated[list[Annotated[str, StringConstraints(max_length=253)]], Field(max_length=32)] = Field(
        default=[], description="Values that the operator compares with."
    )


class NodeTerm(Part):
    """Conditions on a node that must all hold."""

    match_expressions: Annotated[list[NodeRequirement], Field(max_length=16)] = Field(
        default=[], description="Conditions on the node's labels."
    )
    match_fields: Annotated[list[NodeRequirement], Field(max_length=16)] = Field(
        default=[], description="Conditions on the node's fields, of which Kubernetes knows metadata.name."
    )


class NodeSelector(Part):
    """Nodes that meet one of several terms."""

    node_selector_terms: Annotated[list[NodeTerm], Field(min_length=1, max_length=16)] = Field(
        description="Terms of which at least one must hold."
    )


class PreferredNode(Part):
    """A wish for a node."""

    weight: Weight = Field(description="How much the wish counts beside others, 1 to 100.")
    preference: NodeTerm = Field(description="Conditions that the wished node meets.")


class NodeAffinity(Part):
    """Which nodes the pods may or should run on."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = Field(
        default=None, description="Nodes the pods may run on; no other node takes them."
    )
    preferred_during_scheduling_ignored_during_execution: Annotated[list[PreferredNode], Field(max_length=16)] = Field(
        default=[], description="Nodes the pods should run on, if there is room."
    )


class PodTerm(Part):
    """Pods that share a place, such as a node or a zone."""

    topology_key: LabelKey = Field(description="Node label whose value names the place, kubernetes.io/hostname.")
    label_selector: LabelSelector | None = Field(default=None, description="Labels of the pods that are meant.")
    namespaces: Annotated[list[Name], Field(max_length=16)] = Field(
        default=[], description="Namespaces of those pods. Unset: the model's own."
    )
    namespace_selector: LabelSelector | None = Field(
        default=None, description="Labels of namespaces of those pods, beside namespaces."
    )


class PreferredPods(Part):
    """A wish for or against a place."""

    weight: Weight = Field(description="How much the wish counts beside others, 1 to 100.")
    pod_affinity_term: PodTerm = Field(description="Pods whose place is wished for, or to be kept away from.")


class PodAffinity(Part):
    """Which other pods a place is shared with, or kept apart from."""

    required_during_scheduling_ignored_during_execution: Annotated[list[PodTerm], Field(max_length=16)] = Field(
        default=[], description="Terms that must all hold; else the pod waits."
    )
    preferred_during_scheduling_ignored_during_execution: Annotated[list[PreferredPods], Field(max_length=16)] = Field(
        default=[], description="Terms that should hold, if there is room."
    )


class Affinity(Part):
    """Attraction of the pods to nodes and other pods."""

    node_affinity: NodeAffinity | None = Field(default=None, description="Nodes that the pods run on.")
    pod_affinity: PodAffinity | None = Field(default=None, description="Pods that the pods run beside.")
    pod_anti_affinity: PodAffinity | None = Field(default=None, description="Pods that the pods keep away from.")


class Spread(Part):
    """How evenly the pods are spread over places."""

    max_skew: Annotated[int, Field(ge=1, le=1000)] = Field(
        description="Pods that one place may have more than another."
    )
    topology_key: LabelKey = Field(description="Node label whose value names the place, topology.kubernetes.io/zone.")
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(
        description="DoNotSchedule: the pod waits for a place. ScheduleAnyway: the skew is only kept small."
    )
    label_selector: LabelSelector | None = Field(
        default=None, description="Labels of the pods that are counted. Unset: the pods of this model."
    )
    min_domains: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="Places there must be at least, with DoNotSchedule. Unset: one is enough."
    )


SPREAD_KEYS = merged_by("topologyKey", "whenUnsatisfiable")
