"""Fluent builders for the objects an operator meets: `a_pod("m-1").newest_of(deployment).crashed(...)`.

Each step returns the builder; `.obj` is the dict as the API server would give it.
"""

from __future__ import annotations

from typing import Any, Self

from minisgl.info import CacheFacts, EngineFacts, Place, ServerInfo, StartInfo
from minisgl.plan.inspection import Inspection, Report
from minisgl_operator import api
from minisgl_operator.api import Key, Spec
from minisgl_operator.build import children
from minisgl_operator.objects import Child, Object
from minisgl_operator.settings import Settings

NOW = "2026-11-24T12:00:00Z"
UID = "11111111-1111-4111-8111-111111111111"
SETTINGS = Settings(runtime_image="registry/minisgl-runtime:1")


def a_spec(**fields: Any) -> dict[str, Any]:
    """A small valid spec as stored: on a CPU, from a volume."""
    return {
        "model": {"source": "pvc://models/smollm2"},
        "device": {"type": "cpu", "resourceName": "nvidia.com/gpu"},
        "replicas": 1,
    } | fields


def a_model(name: str = "smollm2", *, generation: int = 1, status: Object | None = None, **fields: Any) -> Object:
    """A MiniSGLModel as stored."""
    return {
        "apiVersion": api.API_VERSION,
        "kind": api.KIND,
        "metadata": {"name": name, "namespace": "ns", "uid": UID, "generation": generation, "resourceVersion": "1"},
        "spec": a_spec(**fields),
        "status": status or {"observedGeneration": -1},
    }


def build_children(
    name: str = "smollm2", settings: Settings = SETTINGS, live: Object | None = None, **fields: Any
) -> dict[Child, Object]:
    """What the operator wants for `a_spec(**fields)`."""
    return children(Key("ns", name), UID, Spec.model_validate(a_spec(**fields)), settings, live)


class DeploymentBuilder:
    """A Deployment as its controller leaves it: settled, with no pod yet."""

    def __init__(self, **fields: Any) -> None:
        self.obj = build_children(**fields)[Child.DEPLOYMENT]
        self.obj["metadata"]["generation"] = 1
        self.obj["status"] = {"observedGeneration": 1}

    def counting(self, replicas: int, *, updated: int | None = None, ready: int = 0) -> Self:
        """Set the counters; `updated` defaults to all."""
        updated = replicas if updated is None else updated
        self.obj["status"] |= {"replicas": replicas, "updatedReplicas": updated, "readyReplicas": ready}
        return self

    def unseen_by_its_controller(self) -> Self:
        """As right after an apply."""
        self.obj["metadata"]["generation"] += 1
        return self

    def saying(self, kind: str, status: str, reason: str, message: str = "") -> Self:
        """Add a condition."""
        self.obj["status"].setdefault("conditions", []).append(
            {"type": kind, "status": status, "reason": reason, "message": message}
        )
        return self


class PodBuilder:
    """A pod that has just been created."""

    def __init__(self, name: str, deployment: Object, *, older: bool = False) -> None:
        template = deployment["spec"]["template"]["metadata"]
        annotations = dict(template["annotations"]) | ({api.TEMPLATE_HASH: "older"} if older else {})
        self.obj: Object = {
            "metadata": {
                "name": name,
                "namespace": "ns",
                "uid": f"uid-{name}",
                "labels": template["labels"],
                "annotations": annotations,
                "creationTimestamp": "2026-11-24T11:59:00Z",
            },
            "status": {"phase": "Pending", "conditions": []},
        }

    def unschedulable(self, message: str) -> Self:
        """No node takes it."""
        return self._condition("PodScheduled", "False", reason="Unschedulable", message=message)

    def waiting(self, reason: str, message: str = "", restarts: int = 0) -> Self:
        """On a node; its container waits."""
        self._condition("PodScheduled", "True", since="2026-11-24T11:59:01Z")
        return self._container({"waiting": {"reason": reason, "message": message}}, restarts=restarts)

    def running(self, *, started: bool = False) -> Self:
        """Its container runs; `started`: the startup probe has succeeded."""
        self.obj["status"]["phase"] = "Running"
        self._condition("PodScheduled", "True", since="2026-11-24T11:59:01Z")
        return self._container({"running": {"startedAt": "2026-11-24T11:59:05Z"}}, started=started)

    def ready(self, since: str = "2026-11-24T11:59:42Z") -> Self:
        """It answers."""
        self.running(started=True)
        self.obj["status"]["podIP"] = "10.0.0.7"
        return self._condition("Ready", "True", since=since)

    def started(self) -> Self:
        """Its startup probe has succeeded; the first readiness probe is on its way."""
        self.running(started=True)
        return self._condition("Ready", "False", since="2026-11-24T11:59:01Z")

    def silent(self) -> Self:
        """It answered, and does not any more."""
        self.running(started=True)
        return self._condition("Ready", "False", since=NOW)

    def crashed(self, exit_code: int = 1, message: str = "", reason: str = "Error", lasted: int = 5) -> Self:
        """Its container ended before and waits for the next start."""
        minutes, seconds = divmod(lasted, 60)
        ended = {
            "exitCode": exit_code,
            "reason": reason,
            "message": message,
            "startedAt": "2026-11-24T11:00:00Z",
            "finishedAt": f"2026-11-24T11:{minutes:02}:{seconds:02}Z",
        }
        containers = self.obj["status"].get("containerStatuses") or [{}]
        restarts = containers[0].get("restartCount", 0) + 1
        self.waiting("CrashLoopBackOff", "back-off 10s restarting failed container", restarts)
        self.obj["status"]["containerStatuses"][0]["lastState"] = {"terminated": ended}
        return self

    def asking(self, resource: str, amount: int | str) -> Self:
        """Its container has this limit."""
        limits = {"limits": {resource: str(amount)}}
        self.obj["spec"] = {"containers": [{"name": "minisgl", "args": [], "resources": limits}]}
        return self

    def mounting(self, image: str) -> Self:
        """An image is one of its volumes."""
        self.obj.setdefault("spec", {})["volumes"] = [{"name": "models", "image": {"reference": image}}]
        return self

    def prepared(self) -> Self:
        """An init container has done its part."""
        ended = {"terminated": {"exitCode": 0, "reason": "Completed"}}
        self.obj["status"]["initContainerStatuses"] = [{"name": "check", "state": ended, "ready": True}]
        return self

    def refused_at_first(self, message: str) -> Self:
        """An init container ended with an error."""
        ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": message}}
        self.obj["status"]["initContainerStatuses"] = [{"name": "check", "state": ended, "ready": False}]
        return self

    def networked(self, since: str = "2026-11-24T11:59:03Z") -> Self:
        """Network and volumes are there."""
        return self._condition("PodReadyToStartContainers", "True", since=since)

    def created(self, at: str) -> Self:
        """Made then."""
        self.obj["metadata"]["creationTimestamp"] = at
        return self

    def ended(self, exit_code: int, message: str) -> Self:
        """Its container has ended for good, as a Job's does."""
        self._container({"terminated": {"exitCode": exit_code, "message": message}})
        self.obj["status"]["phase"] = "Failed" if exit_code else "Succeeded"
        return self

    def evicted(self, message: str) -> Self:
        """The node ended it."""
        self.obj["status"] |= {"phase": "Failed", "reason": "Evicted", "message": message}
        return self

    def leaving(self) -> Self:
        """Deletion has begun."""
        self.obj["metadata"]["deletionTimestamp"] = NOW
        return self

    def _condition(self, kind: str, status: str, *, since: str = NOW, **more: str) -> Self:
        conditions = [each for each in self.obj["status"]["conditions"] if each["type"] != kind]
        self.obj["status"]["conditions"] = [
            *conditions,
            {"type": kind, "status": status, "lastTransitionTime": since} | more,
        ]
        return self

    def _container(self, state: Object, *, restarts: int = 0, started: bool = False) -> Self:
        self.obj["status"]["containerStatuses"] = [
            {
                "name": "minisgl",
                "image": "registry/minisgl-runtime:1",
                "state": state,
                "restartCount": restarts,
                "started": started,
            }
        ]
        return self


def a_deployment(**fields: Any) -> DeploymentBuilder:
    """A Deployment for `a_spec(**fields)`."""
    return DeploymentBuilder(**fields)


def a_pod(name: str, deployment: Object) -> PodBuilder:
    """A pod of the newest template."""
    return PodBuilder(name, deployment)


def an_older_pod(name: str, deployment: Object) -> PodBuilder:
    """A pod of a template before."""
    return PodBuilder(name, deployment, older=True)


def start_info() -> StartInfo:
    """What a server answers to /startupz once it serves."""
    server = server_info()
    return StartInfo(status="started", startup_seconds=server.startup_seconds, server=server)


def loading_info() -> StartInfo:
    """And while it loads."""
    place = Place(phase="weights", seconds=30.0, done=4300, total=10_000, bytes_per_second=100, eta_seconds=35.2)
    return StartInfo(status="starting", place=place, quiet_seconds=0.5)


SHAPE = Inspection(
    architecture="LlamaForCausalLM",
    dtype="bfloat16",
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    context_length=8192,
    tied_embeddings=True,
)


def an_inspection(exit_code: int = 0, message: str | None = None) -> PodBuilder:
    """The pod of an inspection that has ended, with its report or `message`."""
    deployment = {"spec": {"template": {"metadata": {"annotations": {}, "labels": {}}}}}
    report = Report(model=SHAPE).model_dump_json(by_alias=True, exclude_defaults=True)
    told = report if message is None else message
    return PodBuilder("smollm2-inspect-1", deployment).ended(exit_code, told)


def server_info() -> ServerInfo:
    """What a server answers to /server_info."""
    return ServerInfo(
        version="0.1.0",
        served_model_name="smollm2",
        model_path="/models/smollm2",
        startup_seconds={"weights": 1.5, "ready": 3.25},
        engine=EngineFacts(
            architecture="LlamaForCausalLM",
            device="cpu",
            dtype="float32",
            attention_backend="torch",
            tensor_parallel_size=1,
            context_length=8192,
            max_running_requests=16,
            cache_type="radix",
            weight_bytes=538_000_000,
            kv_cache=CacheFacts(pages=512, page_size=16, tokens=8192, bytes=377_487_360, limited_by="numTokens"),
        ),
    )
