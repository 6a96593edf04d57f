"""A node that is lost: the real node controller says so, without a node that could be."""

from __future__ import annotations

from datetime import UTC, datetime

from control_plane.server import ControlPlane
from control_plane.stage import Stage

GRACE_SECONDS = 3


def test_a_model_whose_node_is_lost_is_not_ready_until_a_pod_elsewhere_is(plane: ControlPlane, stage: Stage) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    node = {"metadata": {"name": stage.namespace}}
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now}
    plane.admin.call("POST", "/api/v1/nodes", node)
    path = f"/api/v1/nodes/{stage.namespace}/status"
    plane.admin.call("PATCH", path, {"status": {"conditions": [ready]}}, "application/merge-patch+json")
    stage.start()
    stage.create("m")
    stage.until_whole("m")
    stage.serve("m", node=stage.namespace)
    stage.until_reason("m", "Serving")
    plane.start_controllers("node-lifecycle-controller", flags=(f"--node-monitor-grace-period={GRACE_SECONDS}s",
                                                               "--node-monitor-period=1s"))  # fmt: skip
    stage.until("it is told", lambda: stage.reason("m") not in ("", "Serving"))
    stage.serve("m")
    stage.until_reason("m", "Serving")
