"""All models, their children and pods as lists told them at one time: a `Cluster` on paper, which refuses to write.

A reconcile against it costs no call. Whatever is not in it, or would be done, is a reason for a real look.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from minisgl_operator import api
from minisgl_operator.api import Key
from minisgl_operator.errors import OperatorError, UnknownKind
from minisgl_operator.objects import Child, Object


class Unsettled(OperatorError):
    """Something is to be done about the model."""


class Snapshot:
    """Objects by model. Children and pods are those that carry our label; a kind that is not there is not known."""

    def __init__(
        self, models: Iterable[Object], children: Mapping[Child, Iterable[Object]], pods: Iterable[Object]
    ) -> None:
        self._models = {_key(model): model for model in models}
        self._children = {child: {_key(item): item for item in items} for child, items in children.items()}
        self._pods: defaultdict[Key, list[Object]] = defaultdict(list)
        for pod in pods:
            self._pods[Key(pod["metadata"]["namespace"], pod["metadata"]["labels"][api.MODEL_LABEL])].append(pod)

    async def models(self) -> list[Key]:
        """All models."""
        return list(self._models)

    async def model(self, key: Key) -> Object | None:
        """One model, or None."""
        return self._models.get(key)

    async def child(self, child: Child, key: Key) -> Object | None:
        """A child, or None; also None for a foreign object of its name. Raises UnknownKind."""
        if child not in self._children:
            raise UnknownKind(f"get {child.plural}", 404, "the cluster does not know this kind")
        return self._children[child].get(key)

    async def pods(self, key: Key) -> list[Object]:
        """The model's pods."""
        return self._pods.get(key, [])

    async def claim(self, namespace: str, name: str) -> Object | None:
        """None: claims are not listed. A claim says something of models that do not serve only; those get a real look,
        which is also what notices a better claim, as no event tells of one.
        """
        return None

    def __getattr__(self, name: str) -> Any:
        """Every other call of a Cluster would do something."""
        if name.startswith("_"):
            raise AttributeError(name)
        return _refuse


async def ask_nobody(pod: Object) -> NoReturn:
    """Stands for the question to a pod."""
    raise Unsettled("a pod would be asked")


async def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise Unsettled("something would be written")


def _key(item: Object) -> Key:
    return Key(item["metadata"]["namespace"], item["metadata"]["name"])
