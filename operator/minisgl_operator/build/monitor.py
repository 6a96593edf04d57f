"""The PodMonitor of a model: the Prometheus operator's word for "scrape these pods"."""

from __future__ import annotations

from minisgl_operator import api
from minisgl_operator.api import Key, Spec
from minisgl_operator.build.meta import build_metadata
from minisgl_operator.objects import Object


def build_pod_monitor(key: Key, uid: str, spec: Spec) -> Object:
    """/metrics of every pod of the model, one series per pod."""
    metadata = build_metadata(key, uid)
    metadata["labels"] = spec.monitoring.labels | metadata["labels"]
    endpoint = {"port": "http", "path": "/metrics"}
    if spec.monitoring.interval is not None:
        endpoint["interval"] = spec.monitoring.interval
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": metadata,
        "spec": {"selector": {"matchLabels": api.selector(key.name)}, "podMetricsEndpoints": [endpoint]},
    }
