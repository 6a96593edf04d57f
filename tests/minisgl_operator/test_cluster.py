"""The door to the API: what a call looks like on the wire, and which error an answer becomes."""

import asyncio
from typing import Any

import pytest

from minisgl_operator import cluster, errors
from minisgl_operator.api import Key
from minisgl_operator.cluster import KubernetesCluster
from minisgl_operator.metrics import Metrics
from minisgl_operator.objects import Child, Object
from support.cluster_objects import build_children


class Answer:
    """What the transport returns."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status, self._body = status, body

    async def read(self) -> bytes:
        return self._body

    def getheader(self, name: str) -> None:
        return None


class Client:
    """Stands for kubernetes.aio's transport; keeps the last call."""

    def __init__(self, status: int = 200, body: bytes = b"{}") -> None:
        self.answer = Answer(status, body)
        self.call: dict[str, Any] = {}

    async def param_serialize(self, method: str, path: str, **more: Any) -> tuple[()]:
        self.call = {"method": method, "path": path} | more
        return ()

    async def call_api(self, **more: Any) -> Answer:
        return self.answer


def a_deployment() -> Object:
    body = build_children()[Child.DEPLOYMENT]
    body["metadata"]["resourceVersion"] = "7"
    return body


def test_a_deployment_is_scaled_by_a_patch_of_one_field_of_the_version_that_was_read() -> None:
    client = Client()
    asyncio.run(KubernetesCluster(client, (), Metrics()).scale(a_deployment(), 3))
    assert (client.call["method"], client.call["path"]) == (
        "PATCH",
        "/apis/apps/v1/namespaces/ns/deployments/smollm2",
    )
    assert client.call["body"] == {"metadata": {"resourceVersion": "7"}, "spec": {"replicas": 3}}
    assert client.call["header_params"]["Content-Type"] == "application/merge-patch+json"


def test_everything_else_is_applied() -> None:
    client = Client()
    asyncio.run(KubernetesCluster(client, (), Metrics()).apply(Child.DEPLOYMENT, a_deployment(), force=True))
    assert client.call["header_params"]["Content-Type"] == "application/apply-patch+yaml"
    assert ("force", "true") in client.call["query_params"]


def test_what_a_list_holds_is_as_a_read_of_it_would_be() -> None:
    """A list names the kind once, for all; without it nothing that is listed would ever be as it should be."""
    body = b'{"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": [{"metadata": {"name": "a"}}]}'
    pods = asyncio.run(KubernetesCluster(Client(200, body), (), Metrics()).pods(Key("ns", "m")))
    assert pods == [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}]


@pytest.mark.parametrize("body", [b"<html>please log in</html>", b'{"items": [', b""])
def test_an_answer_that_is_no_json_is_an_outage(body: bytes) -> None:
    """As a bug of ours it would end the resync and the election, and the process with them."""
    metrics = Metrics()
    with pytest.raises(errors.Unavailable, match="list minisglmodels: the answer is no JSON"):
        asyncio.run(KubernetesCluster(Client(200, body), (), metrics).models())
    labels = {"call": "list minisglmodels", "code": "200"}
    assert metrics.registry.get_sample_value("minisgl_operator_api_errors_total", labels) == 1


def test_an_answer_that_is_no_list_is_an_outage() -> None:
    with pytest.raises(errors.Unavailable, match="list minisglmodels: the answer is no list"):
        asyncio.run(KubernetesCluster(Client(200, b"{}"), (), Metrics()).models())


def test_without_a_cluster_the_operator_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    with pytest.raises(errors.NoCluster, match="set KUBECONFIG"):
        asyncio.run(cluster.connect((), Metrics()))
