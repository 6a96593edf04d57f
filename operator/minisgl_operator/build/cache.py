"""The cache of a pod: its volumes, and the one place where libraries are told to keep things there.

    /cache       emptyDir or the claim: downloaded weights (huggingface/, s3/) and, without a claim of their own, ...
    /cache/jit   ... compiled kernels; with `jitClaim` they lie in /jit

The root file system stays read-only. Our own C kernels are not kept: they are made for the very CPU of a node, in one
second, and another node may have another.
"""

from __future__ import annotations

from dataclasses import dataclass

from minisgl_operator.api import Cache
from minisgl_operator.objects import Object

CACHE, JIT = "/cache", "/jit"


@dataclass(frozen=True)
class Storage:
    """What the cache adds to the container and the pod."""

    volumes: list[Object]
    mounts: list[Object]
    env: list[Object]

    @property
    def has_claim(self) -> bool:
        """Whether a claim is among the volumes: its files must then belong to the pod's group."""
        return any("persistentVolumeClaim" in volume for volume in self.volumes)


def build_cache(cache: Cache) -> Storage:
    """Volumes and environment of `spec.cache`."""
    own_folder = {"emptyDir": {} if cache.size_limit is None else {"sizeLimit": cache.size_limit}}
    volumes = [{"name": "cache", **(_claim(cache.claim) if cache.claim else own_folder)}]
    mounts = [{"name": "cache", "mountPath": CACHE}]
    jit = f"{CACHE}{JIT}"
    if cache.jit_claim:
        jit = JIT
        volumes.append({"name": "jit", **_claim(cache.jit_claim)})
        mounts.append({"name": "jit", "mountPath": JIT})
    places = {
        "HF_HOME": f"{CACHE}/huggingface",
        "MINISGL_CACHE": CACHE,
        "TRITON_CACHE_DIR": f"{jit}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{jit}/inductor",
        "FLASHINFER_WORKSPACE_BASE": f"{jit}/flashinfer",
        "CUTE_DSL_CACHE_DIR": f"{jit}/cute",  # flash-attn 4
        "CUDA_CACHE_PATH": f"{jit}/cuda",  # what the driver compiles
    }
    return Storage(volumes, mounts, [{"name": name, "value": value} for name, value in places.items()])


def _claim(name: str) -> Object:
    return {"persistentVolumeClaim": {"claimName": name}}
