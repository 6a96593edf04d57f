"""`status.plan`: what the operator predicts before a pod exists, and beside it what the engine found."""

from __future__ import annotations

from pydantic import Field

from minisgl.info import Figure
from minisgl.plan.inspection import Inspection
from minisgl_operator.api.part import Part


class Problem(Part):
    """Why the model could not be inspected."""

    reason: str = Field(description="The runtime's reason, such as ModelNotFound.")
    message: str = Field(description="What is seen.")
    action: str = Field(description="What to do next.")


class PerRank(Part):
    """Memory of one rank, on one GPU."""

    weight_bytes: Figure = Field(description="Bytes of the weights, as they are kept.")
    kv_bytes_per_token: Figure = Field(description="Bytes of one token in the KV cache.")
    activation_bytes: Figure = Field(description="Bytes of the largest step.")
    graph_bytes: Figure = Field(description="Bytes of captured steps.")
    cache_tokens: Figure | None = Field(
        default=None, description="Tokens that the KV cache holds; absent where the device's memory is not known."
    )


class Plan(Part):
    """What the model takes of its device's memory."""

    revision: str = Field(description="Of source and image; another one asks the model again.")
    model_revision: str | None = Field(default=None, description="Commit or digest of the model's configuration.")
    model: Inspection | None = Field(default=None, description="Shape of the model, from its config.json.")
    problem: Problem | None = Field(default=None, description="Why there is no shape.")
    memory_bytes: int | None = Field(
        default=None, description="Memory of one GPU, or of the container on a CPU; absent where nothing tells it."
    )
    memory_from: str | None = Field(default=None, description="Field of the spec that tells the memory.")
    least_memory_bytes: int | None = Field(default=None, description="Memory that would be just enough.")
    fits: bool | None = Field(default=None, description="The verdict; absent: the memory is not known.")
    per_rank: PerRank | None = Field(default=None, description="Planned and real memory of one rank.")
