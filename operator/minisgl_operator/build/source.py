"""Where the model comes from: a source URL as model path, volumes, mounts and environment.

`pvc://` and `oci://` are mounted and read in place; `hf://` and `s3://` are fetched by the runtime into the cache
(`build.cache`), which is no part of this.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from minisgl_operator.api import Model
from minisgl_operator.api.model import OCI_IMAGE, S3
from minisgl_operator.objects import Object

MODELS = "/models"


@dataclass(frozen=True)
class Source:
    """What one model source adds to the container and the pod."""

    model_path: str
    volumes: list[Object] = field(default_factory=list)
    mounts: list[Object] = field(default_factory=list)
    env: list[Object] = field(default_factory=list)


def build_source(model: Model) -> Source:
    """Read `model.source`; its shape was checked by the API server."""
    scheme, _, rest = model.source.partition("://")
    env = [] if model.token_secret is None else [_secret("HF_TOKEN", model.token_secret.name, model.token_secret.key)]
    if scheme == "pvc":
        claim, _, folder = rest.partition("/")
        # The mount is read-only, not the claim: some drivers refuse a claim that is attached both ways.
        return _mounted({"persistentVolumeClaim": {"claimName": claim}}, folder, env)
    if scheme == "oci":
        image = _image(rest)
        return _mounted({"image": {"reference": image}}, rest[len(image) + 1 :], env)
    if scheme == "s3":
        return Source(model.source, env=[*_store(model.s3 or S3()), *env])
    return Source(rest, env=env)


def claim_of(model: Model) -> str | None:
    """The PersistentVolumeClaim that the weights lie in, if they do."""
    scheme, _, rest = model.source.partition("://")
    return rest.partition("/")[0] if scheme == "pvc" else None


def _mounted(volume: Object, folder: str, env: list[Object]) -> Source:
    return Source(
        model_path=f"{MODELS}/{folder}".rstrip("/"),
        volumes=[{"name": "models", **volume}],
        mounts=[{"name": "models", "mountPath": MODELS, "readOnly": True}],
        env=env,
    )


def _image(rest: str) -> str:
    """The image reference that `rest` begins with; a folder may follow it."""
    found = re.match(OCI_IMAGE, rest)
    assert found is not None, "the API server checked the pattern"
    return found[0]


def _store(store: S3) -> list[Object]:
    values = {"AWS_ENDPOINT_URL": store.endpoint, "AWS_REGION": store.region}
    env: list[Object] = [{"name": name, "value": value} for name, value in values.items() if value]
    if (secret := store.credentials_secret) is not None:
        env.append(_secret("AWS_ACCESS_KEY_ID", secret.name, secret.access_key_id_key))
        env.append(_secret("AWS_SECRET_ACCESS_KEY", secret.name, secret.secret_access_key_key))
    return env


def _secret(variable: str, name: str, key: str) -> Object:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}
