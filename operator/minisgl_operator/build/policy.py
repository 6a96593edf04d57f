"""The NetworkPolicy of a model: in to the HTTP port, out to what its source needs, and nothing else.

The cluster's network decides whether it is enforced; kubelet's probes are always let through.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from minisgl_operator import api
from minisgl_operator.api import Key, Spec
from minisgl_operator.build.meta import build_metadata
from minisgl_operator.objects import Object
from minisgl_operator.settings import Settings

DNS = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
HTTP, HTTPS = 80, 443
# The label that the Prometheus operator and the Prometheus chart give their pods. It may stand in any namespace.
PROMETHEUS = {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}
OPERATOR = {"matchLabels": {"app.kubernetes.io/name": "minisgl-operator"}}


def build_network_policy(key: Key, uid: str, spec: Spec, settings: Settings) -> Object:
    """Rules for the pods that the model's label selects."""
    wanted = spec.network_policy
    peers: list[Object] = [{"podSelector": {}}]
    if wanted.sources is not None:
        peers = [each.as_written() for each in wanted.sources]
    if settings.lease_namespace:  # the operator's own, which asks the pods for their facts
        peers.append({"namespaceSelector": _named(settings.lease_namespace), "podSelector": OPERATOR})
    if spec.monitoring.enabled:
        peers.append({"namespaceSelector": {}, "podSelector": PROMETHEUS})
    ports = sorted({*_source_ports(spec), *wanted.egress_ports})
    egress = [{"ports": DNS}, *({"ports": [{"protocol": "TCP", "port": port}]} for port in ports)]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": build_metadata(key, uid),
        "spec": {
            "podSelector": {"matchLabels": api.selector(key.name)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": peers, "ports": [{"protocol": "TCP", "port": "http"}]}],
            "egress": egress,
        },
    }


def _source_ports(spec: Spec) -> list[int]:
    """A claim is mounted and an image is pulled by the node; everything else the pod downloads itself."""
    if spec.model.source.startswith(("pvc://", "oci://")):
        return []
    endpoint = urlsplit(spec.model.s3.endpoint or "") if spec.model.s3 else urlsplit("")
    return [endpoint.port or (HTTP if endpoint.scheme == "http" else HTTPS)]


def _named(namespace: str) -> Any:
    return {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
