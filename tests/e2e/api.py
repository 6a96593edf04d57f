"""The API server without kubectl in between: many dry runs in few seconds, over one connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from e2e.environment import MODELS

Object = dict[str, Any]
MODELS_PATH = f"/apis/minisgl.io/v1alpha1/namespaces/{MODELS}/minisglmodels"
PATHS = {
    "Deployment": f"/apis/apps/v1/namespaces/{MODELS}/deployments",
    "Service": f"/api/v1/namespaces/{MODELS}/services",
    "ServiceAccount": f"/api/v1/namespaces/{MODELS}/serviceaccounts",
    "NetworkPolicy": f"/apis/networking.k8s.io/v1/namespaces/{MODELS}/networkpolicies",
    "Pod": f"/api/v1/namespaces/{MODELS}/pods",
}


@dataclass(frozen=True)
class Answer:
    """What the API server said: the object as it would be stored, or why not."""

    accepted: bool
    message: str
    stored: Object


class DryRun:
    """Creates nothing, but passes all that a create passes: schema, CEL, defaults, admission."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def create(self, path: str, item: Object) -> Answer:
        """Try to create one object, unknown fields being errors."""
        query = {"dryRun": "All", "fieldValidation": "Strict"}
        answer = self._client.post(path, params=query, json=item)
        body = answer.json()
        return Answer(answer.is_success, body.get("message", ""), body)

    def model(self, spec: Object, name: str = "dry") -> Answer:
        """Try to create a MiniSGLModel."""
        head = {"apiVersion": "minisgl.io/v1alpha1", "kind": "MiniSGLModel"}
        return self.create(MODELS_PATH, {**head, "metadata": {"name": name}, "spec": spec})

    def child(self, body: Object) -> Answer:
        """Try to create what the operator would."""
        item = json.loads(json.dumps(body))
        item["metadata"] |= {"namespace": MODELS}
        return self.create(PATHS[body["kind"]], item)


@contextmanager
def dry_run(url: str) -> Iterator[DryRun]:
    """A client on `kubectl proxy` at `url`."""
    with httpx.Client(base_url=url, timeout=30) as client:
        yield DryRun(client)
