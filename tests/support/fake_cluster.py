"""A strict cluster in memory with the contract of `minisgl_operator.cluster.Cluster`.

Server-side apply as the API server does it: fields once applied and not applied again vanish, fields of others survive,
a value that another manager set is a conflict unless forced, and an apply that changes nothing writes nothing.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from minisgl_operator import api, errors
from minisgl_operator.api import Key
from minisgl_operator.objects import Child, Object
from minisgl_operator.snapshot import Snapshot
from support.cluster_objects import NOW, PodBuilder, a_model, a_spec, an_inspection

Path = tuple[str, ...]


class FakeCluster:
    """`writes` lists every write as (verb, resource); `fail` makes the next call of a kind raise."""

    def __init__(self) -> None:
        self.objects: dict[Path, Object] = {}
        self.owned: dict[Path, dict[str, set[Path]]] = {}
        self.pod_list: list[Object] = []
        self.writes: list[tuple[str, str]] = []
        self.events: list[tuple[str, str]] = []
        self.fail: dict[str, errors.ApiError] = {}
        self.inspection: PodBuilder | None = an_inspection()  # what a Job's pod has come to; None: it has none
        self.unknown_kinds: set[Child] = set()
        self._version = 100

    # What the operator calls

    async def models(self) -> list[Key]:
        self._raise("list models")
        return [Key(path[1], path[2]) for path in self.objects if path[0] == api.PLURAL]

    async def snapshot(self) -> Snapshot:
        self._raise("list everything")
        stored = copy.deepcopy(self.objects)
        models = [item for path, item in stored.items() if path[0] == api.PLURAL]
        children = {
            child: [
                item
                for path, item in stored.items()
                if path[0] == child.plural and api.MODEL_LABEL in item["metadata"].get("labels", {})
            ]
            for child in Child
            if child not in self.unknown_kinds
        }
        return Snapshot(models, children, copy.deepcopy(self.pod_list))

    async def model(self, key: Key) -> Object | None:
        self._raise("get model")
        return copy.deepcopy(self.objects.get((api.PLURAL, *key)))

    async def child(self, child: Child, key: Key) -> Object | None:
        self._raise(f"get {child.plural}")
        if child in self.unknown_kinds:
            raise errors.UnknownKind(f"get {child.plural}", 404, "404 page not found")
        return copy.deepcopy(self.objects.get((child.plural, *key)))

    async def pods(self, key: Key) -> list[Object]:
        self._raise("list pods")
        return copy.deepcopy(self.pod_list)

    async def claim(self, namespace: str, name: str) -> Object | None:
        self._raise("get persistentvolumeclaims")
        return copy.deepcopy(self.objects.get(("persistentvolumeclaims", namespace, name)))

    async def inspecting(self, key: Key) -> list[Object]:
        self._raise("list pods")
        jobs = [path[2] for path in self.objects if path[0] == "jobs"]
        found = [copy.deepcopy(self.inspection.obj) for _ in jobs if self.inspection is not None]
        for pod, job in zip(found, jobs, strict=False):
            pod["metadata"]["ownerReferences"] = [{"kind": "Job", "name": job}]
        return found

    async def job(self, namespace: str, name: str) -> Object | None:
        self._raise("get jobs")
        return copy.deepcopy(self.objects.get(("jobs", namespace, name)))

    async def start_job(self, body: Object) -> Object:
        self._raise("patch jobs")
        meta = body["metadata"]
        stored = self._apply(
            ("jobs", meta["namespace"], meta["name"]), copy.deepcopy(body), api.FIELD_MANAGER, force=False
        )
        stored["metadata"].setdefault("creationTimestamp", NOW)
        return copy.deepcopy(stored)

    async def apply(self, child: Child, body: Object, *, force: bool) -> Object:
        self._raise(f"patch {child.plural}")
        meta = body["metadata"]
        path = (child.plural, meta["namespace"], meta["name"])
        assert body["kind"] == child.kind
        stored = self._apply(path, copy.deepcopy(body), api.FIELD_MANAGER, force=force)
        return copy.deepcopy(stored)

    async def scale(self, deployment: Object, replicas: int) -> Object:
        self._raise("patch deployments")
        meta = deployment["metadata"]
        path = (Child.DEPLOYMENT.plural, meta["namespace"], meta["name"])
        stored = self.objects[path]
        if stored["metadata"]["resourceVersion"] != meta["resourceVersion"]:
            raise errors.Conflict("patch deployments", 409, "the object has been modified")
        stored["spec"]["replicas"] = replicas
        stored["metadata"]["generation"] += 1
        self.owned[path].setdefault("merge patch", set()).add(("spec", "replicas"))
        self._wrote(stored, "patch", "deployments")
        return copy.deepcopy(stored)

    async def delete(self, child: Child, body: Object) -> None:
        self._raise(f"delete {child.plural}")
        path = (child.plural, body["metadata"]["namespace"], body["metadata"]["name"])
        if path in self.objects and self.objects[path]["metadata"]["uid"] != body["metadata"]["uid"]:
            raise errors.Conflict(f"delete {child.plural}", 409, "uid mismatch")
        if self.objects.pop(path, None) is not None:
            del self.owned[path]
            self.writes.append(("delete", child.plural))

    async def apply_status(self, model: Object, status: Object) -> Object:
        self._raise("patch status")
        meta = model["metadata"]
        stored = self.objects.get((api.PLURAL, meta["namespace"], meta["name"]))
        if stored is None:
            raise errors.NotFound("patch status", 404, "not found")
        if stored["metadata"]["resourceVersion"] != meta["resourceVersion"]:
            raise errors.Conflict("patch status", 409, "the object has been modified")
        stored["status"] = copy.deepcopy(status)
        self._wrote(stored, "patch", "status")
        return copy.deepcopy(stored)

    async def event(self, model: Object, kind: str, reason: str, message: str, now: str) -> None:
        self.events.append((kind, reason))
        self.writes.append(("create", "events"))

    # What users and controllers do

    def create_model(self, name: str = "smollm2", **fields: Any) -> Key:
        """kubectl create."""
        self.objects[api.PLURAL, "ns", name] = a_model(name, **fields)
        return Key("ns", name)

    def create_claim(self, name: str, *modes: str) -> None:
        """A PersistentVolumeClaim in the models' namespace."""
        self.objects["persistentvolumeclaims", "ns", name] = {
            "metadata": {"name": name},
            "spec": {"accessModes": modes},
        }

    def edit_model(self, key: Key, **fields: Any) -> None:
        """kubectl edit: a change of spec is a new generation."""
        model = self.objects[api.PLURAL, *key]
        model["spec"] |= fields
        model["metadata"]["generation"] += 1

    def replace_spec(self, key: Key, spec: Object) -> None:
        """kubectl replace: fields that are not given fall back to those of `a_spec`."""
        model = self.objects[api.PLURAL, *key]
        model["spec"] = a_spec(**spec)
        model["metadata"]["generation"] += 1

    def edit(self, child: Child, key: Key, change: Callable[[Object], None], manager: str = "kubectl") -> None:
        """Another writer changes a child, and owns from then on what it changed."""
        path = (child.plural, *key)
        before = _leaves(self.objects[path])
        change(self.objects[path])
        after = _leaves(self.objects[path])
        changed = {leaf for leaf in before.keys() | after.keys() if before.get(leaf) != after.get(leaf)}
        for fields in self.owned.setdefault(path, {}).values():
            fields -= changed
        self.owned[path].setdefault(manager, set()).update(changed & after.keys())

    def delete_by_hand(self, child: Child, key: Key) -> None:
        """kubectl delete."""
        del self.objects[child.plural, *key]
        del self.owned[child.plural, *key]

    def run_pods(self, key: Key, *, ready: bool = True) -> None:
        """Deployment controller, scheduler and kubelet in one: all replicas run the newest template."""
        deployment = self.objects[Child.DEPLOYMENT.plural, *key]
        replicas = deployment["spec"]["replicas"]
        builders = [PodBuilder(f"{key.name}-{number}", deployment) for number in range(replicas)]
        self.pod_list = [(pod.ready() if ready else pod.running()).obj for pod in builders]
        deployment["status"] = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": replicas,
            "updatedReplicas": replicas,
            "readyReplicas": replicas if ready else 0,
        }

    # How it works

    def _raise(self, call: str) -> None:
        if error := self.fail.pop(call, None):
            raise error

    def _apply(self, path: Path, body: Object, manager: str, *, force: bool) -> Object:
        body = json.loads(json.dumps(body))  # over a wire, no two fields are the same object
        wanted = _leaves(body)
        stored = self.objects.get(path)
        if stored is None:
            meta = {"uid": f"uid-{path[0]}-{path[2]}", "generation": 1}
            stored = self.objects[path] = {**body, "metadata": {**body["metadata"], **meta}}
            stored["spec"] = stored.get("spec", {}) | {"defaultedByServer": True}
            self.owned[path] = {manager: set(wanted)}
            self._wrote(stored, "patch", path[0])
            return self._with_managers(path)
        current = _leaves(stored)
        managers = self.owned.setdefault(path, {})
        for other, fields in managers.items():
            clashing = {leaf for leaf in fields & wanted.keys() if current.get(leaf) != wanted[leaf]}
            if other != manager and clashing and not force:
                raise errors.Conflict(f"patch {path[0]}", 409, f"conflict with {other}")
            if other != manager:
                fields -= clashing
        dropped = managers.get(manager, set()) - wanted.keys()
        managers[manager] = set(wanted)
        changed = {leaf: value for leaf, value in wanted.items() if current.get(leaf) != value}
        for leaf, value in changed.items():
            _put(stored, leaf, value)
        for leaf in sorted(dropped, key=_last_what_finds):
            is_there = leaf in _leaves(stored)  # an emptied holder has taken it along
            if is_there and not any(leaf in fields for fields in managers.values()):
                _remove(stored, leaf)
        if changed or dropped:
            if any(leaf[0] == "spec" for leaf in [*changed, *dropped]):
                stored["metadata"]["generation"] += 1
            self._wrote(stored, "patch", path[0])
        return self._with_managers(path)

    def _with_managers(self, path: Path) -> Object:
        stored = self.objects[path]
        stored["metadata"]["managedFields"] = [
            {"manager": name, "operation": "Apply" if name == api.FIELD_MANAGER else "Update"}
            for name in self.owned[path]
        ]
        return stored

    def _wrote(self, obj: Object, verb: str, resource: str) -> None:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self.writes.append((verb, resource))


KEYS = ("name", "mountPath", "uid", "containerPort", "port")


def _leaves(value: Any, path: Path = ()) -> dict[Path, Any]:
    """Field paths -> values; lists of objects are merged by their key, other lists are one value."""
    if path[:1] == ("status",) or path[-1:] == ("managedFields",):
        return {}
    if isinstance(value, dict) and value:
        return {leaf: found for name, item in value.items() for leaf, found in _leaves(item, (*path, name)).items()}
    if path[-1:] in (("ingress",), ("egress",)):
        return {path: value}  # a NetworkPolicy's rules are one value each
    if isinstance(value, list) and value and all(_key(item) for item in value):
        return {leaf: found for item in value for leaf, found in _leaves(item, (*path, f"[{_key(item)}]")).items()}
    return {path: value}


def _key(item: Any) -> str | None:
    return next((str(item[key]) for key in KEYS if key in item), None) if isinstance(item, dict) else None


def _walk(obj: Any, path: Path) -> Any:
    for name in path:
        obj = next(item for item in obj if _key(item) == name[1:-1]) if name.startswith("[") else obj[name]
    return obj


def _put(obj: Object, leaf: Path, value: Any) -> None:
    for depth, name in enumerate(leaf[:-1]):
        parent = _walk(obj, leaf[:depth])
        is_list = leaf[depth + 1].startswith("[")
        if name.startswith("["):
            if all(_key(item) != name[1:-1] for item in parent):
                parent.append({"name": name[1:-1]})
        elif name not in parent:
            parent[name] = [] if is_list else {}
    _walk(obj, leaf[:-1])[leaf[-1]] = value


def _last_what_finds(leaf: Path) -> tuple[int, int]:
    """An item of a list is found by its key, so that goes last."""
    return len(KEYS) - KEYS.index(leaf[-1]) if leaf[-1] in KEYS else 0, -len(leaf)


def _remove(obj: Object, leaf: Path) -> None:
    """Drop the field, and what holds it if nothing is left there."""
    holders = [_walk(obj, leaf[:depth]) for depth in range(len(leaf))]
    for depth in reversed(range(len(leaf))):
        if depth < len(leaf) - 1 and holders[depth + 1] not in ({}, []):
            return
        if leaf[depth].startswith("["):
            holders[depth].remove(holders[depth + 1])
        else:
            del holders[depth][leaf[depth]]
