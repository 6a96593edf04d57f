"""The objects every cluster starts with, from the folder manifests/, and the wait until they serve."""

from __future__ import annotations

import string
from collections.abc import Mapping

from cluster.address import DNS_IP
from cluster.node import kubectl
from cluster.paths import HERE, MODELS
from cluster.say import ClusterError

ORDER = ("namespaces", "runtimeclass", "coredns", "models", "prometheus")
READY_SECONDS = 90


def render_objects(images: Mapping[str, str]) -> str:
    """All manifests as one stream; `images` maps short names to full ones."""
    values = {
        "dns_ip": DNS_IP,
        "models_folder": str(MODELS),
        **{f"{short.replace('-', '_')}_image": name for short, name in images.items()},
    }
    texts = [(HERE / "manifests" / f"{name}.yaml").read_text() for name in ORDER]
    return "---\n".join(string.Template(text).substitute(values) for text in texts)


def apply_objects(images: Mapping[str, str]) -> None:
    """Bring the cluster's own objects to what the manifests say; does nothing when they are so already."""
    kubectl("apply", "--server-side", "--force-conflicts", "--field-manager=minisgl-cluster", "-f", "-",
            text=render_objects(images))  # fmt: skip


def wait_until_served() -> None:
    """Wait for the node, the name service and Prometheus."""
    limit = f"--timeout={READY_SECONDS}s"
    try:
        kubectl("wait", "--for=create", "node/node1", limit, timeout=READY_SECONDS + 5)
        kubectl("wait", "--for=condition=Ready", "node/node1", limit, timeout=READY_SECONDS + 5)
        kubectl("rollout", "status", "-n", "kube-system", "deployment/coredns", limit, timeout=READY_SECONDS + 5)
        kubectl("rollout", "status", "-n", "monitoring", "deployment/prometheus", limit, timeout=READY_SECONDS + 5)
    except ClusterError as error:
        state = kubectl("get", "nodes,pods", "-A", "-o", "wide").rstrip()
        raise ClusterError(f"{error.what}\n{state}", error.next_step, error.log) from error
