"""Where the model comes from: `pvc://claim/path` or `hf://org/name@revision` as model path, volumes and environment."""

from __future__ import annotations

from dataclasses import dataclass

from minisgl_operator.api import Model
from minisgl_operator.objects import Object

MODELS = "/models"
CACHE = "/cache"


@dataclass(frozen=True)
class Source:
    """What one model source adds to the container and the pod."""

    model_path: str
    volume: Object
    mount: Object
    env: list[Object]


def build_source(model: Model) -> Source:
    """Read `model.source`; its shape was checked by the API server."""
    scheme, _, rest = model.source.partition("://")
    token = [] if model.token_secret is None else [_token(model.token_secret.name, model.token_secret.key)]
    if scheme == "pvc":
        claim, _, path = rest.partition("/")
        return Source(
            model_path=f"{MODELS}/{path}".rstrip("/"),
            # The mount is read-only, not the claim: some drivers refuse a claim that is attached both ways.
            volume={"name": "models", "persistentVolumeClaim": {"claimName": claim}},
            mount={"name": "models", "mountPath": MODELS, "readOnly": True},
            env=token,
        )
    return Source(
        model_path=rest,
        volume={"name": "cache", "emptyDir": {}},
        mount={"name": "cache", "mountPath": CACHE},
        env=[{"name": "HF_HOME", "value": CACHE}, *token],
    )


def _token(name: str, key: str) -> Object:
    return {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}
