"""What an administrator and the cluster's own controllers do, over the API and without the operator's code."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from minisgl_operator.objects import Child, Object

MODELS = "/apis/minisgl.io/v1alpha1"
PREFIXES = {
    "models": (MODELS, "minisglmodels"),
    "pods": ("/api/v1", "pods"),
    "events": ("/api/v1", "events"),
    "jobs": ("/apis/batch/v1", "jobs"),
    **{child.plural: (child.prefix, child.plural) for child in Child},
}
CLUSTER_WIDE = {
    "Namespace": "/api/v1/namespaces",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}
NUM_TRIES = 10
NAMESPACED = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
}


class Client:
    """Every call raises httpx.HTTPStatusError with the server's words unless it succeeds."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def close(self) -> None:
        self._client.close()

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Object:
        """One request; again, as kubectl does, while the server says that it cannot yet (a definition was changed)."""
        headers = {"Content-Type": kind} if body is not None else None
        for _ in range(NUM_TRIES):
            answer = self._client.request(method, path, json=body, headers=headers)
            if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
                break
            time.sleep(float(answer.headers.get("Retry-After", 1)))
        if answer.is_error:
            raise httpx.HTTPStatusError(f"{method} {path}: {answer.text}", request=answer.request, response=answer)
        found: Object = answer.json()
        return found

    def watch(self, path: str) -> Iterator[Object]:
        """The events of a watch, until the server ends it or the client is closed."""
        with self._client.stream("GET", path, timeout=None) as answer:
            for line in answer.iter_lines():
                event: Object = json.loads(line)
                yield event

    def is_ready(self) -> bool:
        try:
            return self._client.get("/readyz").is_success
        except httpx.HTTPError:
            return False

    def path(self, kind: str, namespace: str, name: str = "") -> str:
        prefix, plural = PREFIXES[kind]
        return f"{prefix}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")

    def create_object(self, item: Object) -> None:
        """Create an object of an installation, whatever its kind."""
        where = CLUSTER_WIDE.get(item["kind"]) or NAMESPACED[item["kind"]].format(item["metadata"]["namespace"])
        self.call("POST", where, item)

    def create_namespace(self, name: str) -> None:
        self.call("POST", CLUSTER_WIDE["Namespace"], {"metadata": {"name": name}})

    def wait_for_models(self) -> None:
        """Until the definition is served."""

        def served() -> bool:
            try:
                return bool(self.call("GET", f"{MODELS}/minisglmodels"))
            except httpx.HTTPStatusError:
                return False

        eventually("the definition is served", served)

    def create(self, kind: str, namespace: str, body: Object) -> Object:
        return self.call("POST", self.path(kind, namespace), body)

    def get(self, kind: str, namespace: str, name: str) -> Object:
        return self.call("GET", self.path(kind, namespace, name))

    def find(self, kind: str, namespace: str, name: str) -> Object | None:
        try:
            return self.get(kind, namespace, name)
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.NOT_FOUND:
                return None
            raise

    def list(self, kind: str, namespace: str) -> list[Object]:
        items: list[Object] = self.call("GET", self.path(kind, namespace))["items"]
        return items

    def merge(self, kind: str, namespace: str, name: str, body: Object, part: str = "") -> Object:
        """A merge patch, as `kubectl edit` sends it; `part`: "/status" or "/scale"."""
        return self.call("PATCH", self.path(kind, namespace, name) + part, body, "application/merge-patch+json")

    def delete(self, kind: str, namespace: str, name: str) -> None:
        self.call("DELETE", self.path(kind, namespace, name))


def eventually(what: str, probe: Callable[[], Any], within: float = 60, tell: Callable[[], str] = str) -> Any:
    """Ask until the answer is true and return it; a failure tells more."""
    end = time.monotonic() + within
    while True:
        if answer := probe():
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {within} s: {what}\n{tell()}")
        time.sleep(0.05)
