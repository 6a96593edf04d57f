"""Who may reach the pods and who looks at them: `spec.networkPolicy` and `spec.monitoring`."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from minisgl_operator.api.part import Part, rules
from minisgl_operator.api.scalar import Labels
from minisgl_operator.api.select import LabelSelector

Cidr = Annotated[str, StringConstraints(min_length=4, max_length=64, pattern=r"^[0-9a-fA-F:.]+/[0-9]{1,3}$")]


class IpBlock(Part):
    """A range of addresses."""

    cidr: Cidr = Field(description="Range of addresses, such as 10.0.0.0/8.")
    exclude: Annotated[list[Cidr], Field(max_length=16)] = Field(
        default=[], alias="except", description="Ranges within it that are not meant."
    )

    @model_validator(mode="after")
    def is_a_range(self) -> Self:
        """Kubernetes' own judgement, made before any child is written."""
        whole = ipaddress.ip_network(self.cidr, strict=False)
        for text in self.exclude:
            part = ipaddress.ip_network(text, strict=False)
            if part.version != whole.version or not part.subnet_of(whole) or part == whole:  # type: ignore[arg-type]
                raise ValueError(f"except {text} does not lie within {self.cidr}")
        return self


class Peer(Part):
    """Whom a connection may come from: pods by their labels, or a range of addresses."""

    model_config = rules(
        (
            "has(self.ipBlock) != (has(self.podSelector) || has(self.namespaceSelector))",
            "each of from takes either ipBlock, or podSelector and namespaceSelector; an empty selector takes all",
        )
    )

    pod_selector: LabelSelector | None = Field(
        default=None, description="Labels of the pods that may connect. Unset: all pods of the chosen namespaces."
    )
    namespace_selector: LabelSelector | None = Field(
        default=None, description="Labels of their namespaces. Unset: the model's own namespace."
    )
    ip_block: IpBlock | None = Field(default=None, description="Addresses outside the cluster that may connect.")


class NetworkPolicy(Part):
    """Which connections the pods take and make, where the cluster's network enforces policies."""

    enabled: bool = Field(
        default=True, description="Make a NetworkPolicy for the pods. Unset: true. False: any connection is possible."
    )
    sources: Annotated[list[Peer], Field(min_length=1, max_length=32)] | None = Field(
        default=None,
        alias="from",
        description="Who may reach the HTTP port. Unset: all pods of this namespace. The operator may always, and so "
        "may Prometheus if spec.monitoring is enabled.",
    )
    egress_ports: Annotated[list[Annotated[int, Field(ge=1, le=65535)]], Field(max_length=16)] = Field(
        default=[],
        description="More TCP ports that the pods may connect to, such as a proxy's or a mirror's. DNS is always "
        "open, and so is 443 if the model is downloaded.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


class Monitoring(Part):
    """Whether Prometheus scrapes the pods."""

    enabled: bool = Field(
        default=False,
        description="Make a PodMonitor, where the cluster has the Prometheus operator. Unset: false.",
    )
    interval: Annotated[str, StringConstraints(max_length=10, pattern=r"^[1-9][0-9]{0,5}(ms|s|m|h)$")] | None = Field(
        default=None, description="Time between two scrapes, such as 15s. Unset: that Prometheus' default."
    )
    labels: Labels = Field(default={}, description="Labels of the PodMonitor by which a Prometheus selects it.")
