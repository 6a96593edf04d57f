"""The only door to the Kubernetes API: read, server-side apply, status, event. Plain dicts in, plain dicts out.

Declares which rights its calls need (RULES): manifests and charts are generated from that list. Knows nothing of what
the objects mean. No call waits longer than its time-out; every failure is an `errors.ApiError`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import aiohttp

from minisgl import __version__
from minisgl_operator import api, errors
from minisgl_operator.api import Key
from minisgl_operator.echoes import Echoes
from minisgl_operator.metrics import Metrics
from minisgl_operator.objects import Child, Object
from minisgl_operator.snapshot import Snapshot

logger = logging.getLogger(__name__)

# Watches and their lists are kopf's (`handlers`); get, list and patch are the calls below. A server-side apply of a
# missing object is authorised as "create" but stands in the audit log as "patch".
RULES: list[dict[str, list[str]]] = [
    {"apiGroups": [api.GROUP], "resources": [api.PLURAL], "verbs": ["get", "list", "watch"]},
    {"apiGroups": [api.GROUP], "resources": [f"{api.PLURAL}/status"], "verbs": ["patch"]},
    {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "watch", "create", "patch"]},
    {
        "apiGroups": [""],
        "resources": ["services", "serviceaccounts"],
        "verbs": ["get", "list", "watch", "create", "patch"],
    },
    {
        "apiGroups": ["networking.k8s.io"],
        "resources": ["networkpolicies"],
        "verbs": ["get", "list", "watch", "create", "patch", "delete"],
    },
    # Not watched: kopf cannot watch a kind that may be missing. One deleted by hand comes back with the next resync.
    {
        "apiGroups": ["monitoring.coreos.com"],
        "resources": ["podmonitors"],
        "verbs": ["get", "list", "create", "patch", "delete"],
    },
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
    # How many pods may share it; one that the spec names, never a list.
    {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get"]},
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list", "watch", "create", "patch"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
]
# In its own namespace only, and about one object only; `create` cannot be narrowed to a name.
LEASE_RULES: list[dict[str, list[str]]] = [
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [api.FIELD_MANAGER],
        "verbs": ["get", "update"],
    },
]

JOBS = "/apis/batch/v1"
REQUEST_TIMEOUT_SECONDS = 15.0  # a healthy API server answers in milliseconds; kopf's own default is 300
PAGE = 100  # objects per list answer: memory that is freed in small parts is used again
# How the API server refuses, as an internal error, to apply a field that the definition does not have.
UNDECLARED = re.compile(r"\.status\.(\w+)[^\s:]*: field not declared in schema")
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"


class Cluster(Protocol):
    """What the reconciler needs of a cluster; the tests have a strict one in memory."""

    async def models(self) -> list[Key]:
        """All models in the watched namespaces."""

    async def snapshot(self) -> Snapshot:
        """All models in the watched namespaces, with their children and pods."""

    async def model(self, key: Key) -> Object | None:
        """One model, or None."""

    async def child(self, child: Child, key: Key) -> Object | None:
        """The object that has a child's name, whoever owns it, or None. Raises UnknownKind."""

    async def pods(self, key: Key) -> list[Object]:
        """The pods that carry the model's label."""

    async def claim(self, namespace: str, name: str) -> Object | None:
        """One PersistentVolumeClaim, or None."""

    async def inspecting(self, key: Key) -> list[Object]:
        """The pods that look into the model."""

    async def job(self, namespace: str, name: str) -> Object | None:
        """One Job, or None."""

    async def start_job(self, body: Object) -> Object:
        """Make a Job. Returns the stored object."""

    async def apply(self, child: Child, body: Object, *, force: bool) -> Object:
        """Server-side apply; `force` takes over fields that others changed. Returns the stored object."""

    async def scale(self, deployment: Object, replicas: int) -> Object:
        """Change this one field of the Deployment as it was read; another version is a Conflict."""

    async def delete(self, child: Child, body: Object) -> None:
        """Delete this very object: one with another uid is left alone, and is a Conflict. Gone already is done."""

    async def apply_status(self, model: Object, status: Object) -> Object:
        """Write all status of the model as it was read, and return what is stored; another version is a Conflict."""

    async def event(self, model: Object, kind: str, reason: str, message: str, now: str) -> None:
        """Post an Event of type `kind` (Normal, Warning) about a model."""


class KubernetesCluster:
    """The real one, over kubernetes.aio's transport (TLS, tokens and their renewal are its business)."""

    def __init__(self, client: Any, namespaces: Sequence[str], metrics: Metrics) -> None:
        self._client = client
        self._namespaces = namespaces
        self._metrics = metrics
        self.echoes = Echoes()
        self.may_write: Callable[[], bool] = lambda: True  # the Lease's word, where there is one

    async def close(self) -> None:
        """Release the connections."""
        await self._client.close()

    async def models(self) -> list[Key]:
        """All models in the watched namespaces."""
        models = await self._everywhere(f"/apis/{api.API_VERSION}", api.PLURAL, {})
        return [Key(model["metadata"]["namespace"], model["metadata"]["name"]) for model in models]

    async def snapshot(self) -> Snapshot:
        """All models in the watched namespaces, with their children and pods."""
        ours = {"labelSelector": api.MODEL_LABEL}
        models = await self._everywhere(f"/apis/{api.API_VERSION}", api.PLURAL, {})
        children: dict[Child, list[Object]] = {}
        for child in Child:
            try:
                children[child] = await self._everywhere(child.prefix, child.plural, ours)
            except errors.UnknownKind:
                if not child.optional:
                    raise
        return Snapshot(models, children, await self._everywhere("/api/v1", "pods", ours))

    async def model(self, key: Key) -> Object | None:
        """One model, or None."""
        return await self._get(_model_path(key), api.PLURAL)

    async def child(self, child: Child, key: Key) -> Object | None:
        """The object that has a child's name, whoever owns it, or None. Raises UnknownKind."""
        return await self._get(_child_path(child, key), child.plural)

    async def pods(self, key: Key) -> list[Object]:
        """The pods that carry the model's label."""
        query = {"labelSelector": f"{api.MODEL_LABEL}={key.name}"}
        return await self._list(f"/api/v1/namespaces/{key.namespace}/pods", "pods", query)

    async def claim(self, namespace: str, name: str) -> Object | None:
        """One PersistentVolumeClaim, or None."""
        path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}"
        return await self._get(path, "persistentvolumeclaims")

    async def inspecting(self, key: Key) -> list[Object]:
        """The pods that look into the model."""
        query = {"labelSelector": f"{api.INSPECTS_LABEL}={key.name}"}
        return await self._list(f"/api/v1/namespaces/{key.namespace}/pods", "pods", query)

    async def job(self, namespace: str, name: str) -> Object | None:
        """One Job, or None."""
        return await self._get(f"{JOBS}/namespaces/{namespace}/jobs/{name}", "jobs")

    async def start_job(self, body: Object) -> Object:
        """Make a Job. Returns the stored object."""
        meta = body["metadata"]
        return await self._apply(
            f"{JOBS}/namespaces/{meta['namespace']}/jobs/{meta['name']}", "jobs", body, force=False
        )

    async def apply(self, child: Child, body: Object, *, force: bool) -> Object:
        """Server-side apply; `force` takes over fields that others changed. Returns the stored object."""
        return await self._apply(_child_path(child, _key_of(body)), child.plural, body, force=force)

    async def scale(self, deployment: Object, replicas: int) -> Object:
        """Change this one field of the Deployment as it was read; another version is a Conflict."""
        meta = {"resourceVersion": deployment["metadata"]["resourceVersion"]}
        return await self._request(
            "PATCH",
            _child_path(Child.DEPLOYMENT, _key_of(deployment)),
            "patch deployments",
            query={"fieldManager": api.FIELD_MANAGER},
            body={"metadata": meta, "spec": {"replicas": replicas}},
            content_type="application/merge-patch+json",
        )

    async def delete(self, child: Child, body: Object) -> None:
        """Delete this very object: one with another uid is left alone, and is a Conflict. Gone already is done."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": body["metadata"]["uid"]}}
        try:
            await self._request("DELETE", _child_path(child, _key_of(body)), f"delete {child.plural}", body=options)
        except errors.NotFound:
            return

    async def apply_status(self, model: Object, status: Object) -> Object:
        """Write all status of the model as it was read, and return what is stored; another version is a Conflict."""
        key = _key_of(model)
        # Of a status the API server compares the version and not the uid: a deleted namesake's has another version.
        meta = {"name": key.name, "namespace": key.namespace, "resourceVersion": model["metadata"]["resourceVersion"]}
        body = {"apiVersion": api.API_VERSION, "kind": api.KIND, "metadata": meta, "status": status}
        path, plural = f"{_model_path(key)}/status", f"{api.PLURAL}/status"
        try:
            return await self._apply(path, plural, body, force=True)
        except errors.ApiError as error:
            unknown = status.keys() & set(UNDECLARED.findall(error.message))
            if not unknown:
                raise
            # The operator was upgraded before the definition: say what the older one can hold.
            fields = ", ".join(sorted(unknown))
            logger.warning("status of model=%s without %s; apply manifests/crd.yaml of this version", key, fields)
            body["status"] = {name: value for name, value in status.items() if name not in unknown}
            return await self._apply(path, plural, body, force=True)

    async def event(self, model: Object, kind: str, reason: str, message: str, now: str) -> None:
        """Post an Event of type `kind` (Normal, Warning) about a model."""
        meta = model["metadata"]
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{meta['name']}.{uuid.uuid4().hex[:16]}", "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": api.API_VERSION,
                "kind": api.KIND,
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
                "resourceVersion": meta["resourceVersion"],
            },
            "type": kind,
            "reason": reason,
            "message": message[:1024],  # the API server's limit
            "source": {"component": api.FIELD_MANAGER},
            "reportingComponent": api.FIELD_MANAGER,
            "reportingInstance": api.FIELD_MANAGER,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        await self._request("POST", f"/api/v1/namespaces/{meta['namespace']}/events", "create events", body=body)

    async def lease(self, namespace: str, name: str) -> Object | None:
        """One Lease, or None."""
        return await self._get(f"{LEASES.format(namespace)}/{name}", "leases")

    async def create_lease(self, body: Object) -> Object:
        """Create a Lease; Conflict if it exists."""
        path = LEASES.format(body["metadata"]["namespace"])
        return await self._request("POST", path, "create leases", body=body, fenced=False)

    async def replace_lease(self, body: Object) -> Object:
        """Replace a Lease; Conflict if it is no longer the version in `body`."""
        path = f"{LEASES.format(body['metadata']['namespace'])}/{body['metadata']['name']}"
        return await self._request("PUT", path, "update leases", body=body, fenced=False)

    async def _get(self, path: str, plural: str) -> Object | None:
        try:
            return await self._request("GET", path, f"get {plural}")
        except errors.UnknownKind:
            raise
        except errors.NotFound:
            return None

    async def _everywhere(self, prefix: str, plural: str, query: dict[str, str]) -> list[Object]:
        """List in every watched namespace."""
        items: list[Object] = []
        for namespace in self._namespaces or ("",):
            where = f"/namespaces/{namespace}" if namespace else ""
            items += await self._list(f"{prefix}{where}/{plural}", plural, query)
        return items

    async def _list(self, path: str, plural: str, query: dict[str, str]) -> list[Object]:
        items: list[Object] = []
        page = {**query, "limit": str(PAGE)}
        while True:
            answer = await self._request("GET", path, f"list {plural}", query=page)
            if not answer.keys() >= {"kind", "apiVersion", "metadata", "items"}:
                raise errors.Unavailable(f"list {plural}", 200, f"the answer is no list: {str(answer)[:200]}")
            for item in answer["items"]:
                for entry in item["metadata"].get("managedFields", ()):
                    entry.pop("fieldsV1", None)  # half of an object, and nobody reads it
                # What a list holds does not name its own kind, and would differ in that from what was asked for.
                item |= {"kind": answer["kind"].removesuffix("List"), "apiVersion": answer["apiVersion"]}
                items.append(item)
            if not (token := answer["metadata"].get("continue")):
                return items
            page["continue"] = token

    async def _apply(self, path: str, plural: str, body: Object, *, force: bool) -> Object:
        query = {"fieldManager": api.FIELD_MANAGER, "force": "true" if force else "false"}
        kind = "application/apply-patch+yaml"
        stored = await self._request("PATCH", path, f"patch {plural}", query=query, body=body, content_type=kind)
        self.echoes.wrote(stored)
        return stored

    async def _request(
        self,
        method: str,
        path: str,
        where: str,
        query: dict[str, str] | None = None,
        body: Object | None = None,
        *,
        content_type: str = "application/json",
        fenced: bool = True,
    ) -> Object:
        """One call. `where` ("patch services") names it in errors and metrics. `fenced`: a write needs the Lease."""
        if fenced and method != "GET" and not self.may_write():
            raise errors.NotHolder(f"{where}: not done, the Lease was not renewed in time")
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                request = await self._client.param_serialize(
                    method,
                    path,
                    query_params=list((query or {}).items()),
                    header_params=headers,
                    body=body,
                    auth_settings=["BearerToken"],
                )
                answer = await self._client.call_api(*request, _request_timeout=REQUEST_TIMEOUT_SECONDS)
                data = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._metrics.api_errors.labels(where, "0").inc()
            raise errors.Unavailable(where, 0, f"no answer from the API server ({error or 'time-out'})") from error
        if not 200 <= answer.status <= 299:
            if answer.status != 404:
                self._metrics.api_errors.labels(where, str(answer.status)).inc()
            raise errors.api_error(where, answer.status, data, answer.getheader("Retry-After"))
        try:
            result: Object = json.loads(data)
        except ValueError as error:  # a proxy's page, or an answer cut short
            self._metrics.api_errors.labels(where, str(answer.status)).inc()
            raise errors.Unavailable(where, answer.status, f"the answer is no JSON ({error})") from error
        return result


def _child_path(child: Child, key: Key) -> str:
    return f"{child.prefix}/namespaces/{key.namespace}/{child.plural}/{key.name}"


def _key_of(body: Object) -> Key:
    return Key(body["metadata"]["namespace"], body["metadata"]["name"])


def _model_path(key: Key) -> str:
    return f"/apis/{api.API_VERSION}/namespaces/{key.namespace}/{api.PLURAL}/{key.name}"


async def connect(namespaces: Sequence[str], metrics: Metrics) -> KubernetesCluster:
    """Connect with the pod's service account, or outside a cluster with KUBECONFIG. Raises NoCluster."""
    from kubernetes.aio import client, config

    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        # Its own default is KUBECONFIG as it was when the module was first imported.
        file = os.environ.get("KUBECONFIG")
        try:
            await config.load_kube_config(file, client_configuration=configuration)  # type: ignore[no-untyped-call]
        except (config.ConfigException, OSError) as error:
            raise errors.NoCluster(
                f"no cluster to work for: neither a pod's service account nor KUBECONFIG={file or ''} names one "
                f"({error}); set KUBECONFIG to a file that does"
            ) from error
    # A proxy is the kubeconfig's `proxy-url`. Trusting the environment means to read ~/.netrc for each request.
    configuration.client_session_kwargs = {"trust_env": False}
    configuration.retries = None  # the queue retries, with back-off and with fresh eyes
    api_client = client.ApiClient(configuration)
    api_client.user_agent = f"{api.FIELD_MANAGER}/{__version__}"
    return KubernetesCluster(api_client, namespaces, metrics)
