"""`spec.cache`: where downloaded weights and compiled kernels are kept.

Every field's description is what `kubectl explain` prints.
"""

from __future__ import annotations

from pydantic import Field

from minisgl_operator.api.part import Part, rules
from minisgl_operator.api.scalar import Name, Quantity


class Cache(Part):
    """What outlives a pod, if anything does."""

    model_config = rules(
        (
            "!(has(self.claim) && has(self.sizeLimit))",
            "cache.sizeLimit is for the folder of a pod; a claim has a size of its own: remove one",
        )
    )

    claim: Name | None = Field(
        default=None,
        description="PersistentVolumeClaim of this namespace for downloaded weights and compiled kernels. All replicas "
        "share it, also several models may; each file is fetched once. Unset: a folder that ends with its pod.",
    )
    jit_claim: Name | None = Field(
        default=None,
        description="PersistentVolumeClaim for compiled kernels alone (Triton, FlashInfer, torch), such as a small "
        "fast one beside a large one for weights. Unset: they lie beside the weights. Pods run what lies there: "
        "give no one else write access.",
    )
    size_limit: Quantity | None = Field(
        default=None,
        description="Most that a pod's own folder may hold, such as 200Gi; a pod that exceeds it is evicted. Unset: "
        "all that the node's disk has.",
    )
