"""The facts of a running server, as `/server_info` reports them and the operator copies them into status.

Pure data in the floor that all share: the runtime fills it, the operator's CRD schema is generated from it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Facts(BaseModel):
    """Base: camelCase in JSON, as everything that Kubernetes users read."""

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )


class CacheFacts(Facts):
    """How large the KV cache became, and what limited it."""

    pages: int = Field(description="Pages of the KV cache that requests can use.")
    page_size: int = Field(description="Tokens in one page.")
    tokens: int = Field(description="Tokens the cache holds: pages times pageSize.")
    bytes: int = Field(description="Bytes of the cache on one rank.")
    dtype: str = Field(default="", description="Number format of the cached keys and values; empty: not told.")
    limited_by: Literal["memoryRatio", "numPages", "numTokens"] = Field(
        description="The launch argument that decided the size: memoryRatio, numPages or numTokens."
    )


class Figure(Facts):
    """A prediction beside the truth."""

    planned: int = Field(description="Predicted from config.json and the launch arguments.")
    real: int | None = Field(default=None, description="What the engine found; absent where nothing measures it.")


class MemoryFacts(Facts):
    """What the plan said of one rank's memory, and what came true."""

    weight_bytes: Figure = Field(description="Bytes of the weights, as they are kept.")
    kv_bytes_per_token: Figure = Field(description="Bytes of one token in the KV cache.")
    activation_bytes: Figure = Field(description="Bytes of the largest step; tried on a GPU only.")
    graph_bytes: Figure = Field(description="Bytes of captured steps; measured on a GPU only.")
    cache_tokens: Figure = Field(description="Tokens that the KV cache holds.")
    free_bytes: int = Field(description="Bytes that the rank found free before it loaded anything.")


class EngineFacts(Facts):
    """What the engine decided at start: every "auto" resolved."""

    architecture: str = Field(description="Model class of the checkpoint.")
    model_revision: str = Field(
        default="",
        description="The hub's commit, a bucket's digest, or sha256: and the fingerprint of a local folder.",
    )
    device: str = Field(description="Device the model runs on.")
    dtype: str = Field(description="Number format of weights and activations.")
    attention_backend: str = Field(description="Attention kernels: one name, or prefill,decode.")
    tensor_parallel_size: int = Field(description="Ranks that share the model.")
    vocabulary_size: int = Field(default=0, description="Token ids that the model knows; 0: not told.")
    context_length: int = Field(description="Longest prompt plus answer, in tokens.")
    max_running_requests: int = Field(description="Requests computed at the same time.")
    max_step_tokens: int = Field(default=0, description="Most tokens computed in one step.")
    overlap: bool = Field(default=False, description="Whether the next step is decided while this one is computed.")
    cache_type: str = Field(description="Prefix cache in use.")
    cuda_graph_batch_sizes: list[int] = Field(default=[], description="Decode batch sizes captured in CUDA graphs.")
    weight_bytes: int = Field(description="Bytes of the weights on one rank.")
    kv_cache: CacheFacts = Field(description="Size of the KV cache.")
    memory: MemoryFacts | None = Field(default=None, description="Planned and real memory of one rank.")


class ServerInfo(Facts):
    """The whole answer of `/server_info`."""

    version: str = Field(description="Version of the runtime.")
    served_model_name: str = Field(description="Name clients ask for.")
    model_path: str = Field(description="Folder or repository id of the model.")
    launch_args: dict[str, Any] = Field(default={}, description="Resolved launch arguments, defaults filled in.")
    engine: EngineFacts = Field(description="What the engine decided at start.")
    tool_call_parser: str | None = Field(default=None, description="Format of tool calls; null: tools are refused.")
    reasoning_parser: str | None = Field(default=None, description="Format of reasoning; null: it stays content.")
    startup_seconds: dict[str, float] = Field(description="Seconds from process start to the end of each start phase.")


class Place(Facts):
    """Where a start is: of one process, or of the whole server. `done` and `total` are bytes while weights load."""

    phase: str = Field(description="Start phase, such as import, weights, warm-up or first-answer.")
    seconds: float = Field(description="Seconds since the phase began.")
    done: int | None = Field(default=None, description="How much of the phase is done.")
    total: int | None = Field(default=None, description="How much there is to do.")
    bytes_per_second: int | None = Field(default=None, description="Pace of this phase, per second.")
    eta_seconds: float | None = Field(default=None, description="Seconds until the phase ends, at this pace.")


class StartInfo(Facts):
    """The whole answer of `/startupz`: how far the start is, and afterwards how it went and what came of it."""

    status: Literal["starting", "started"] = Field(description="started: a first answer has been given.")
    place: Place | None = Field(default=None, description="Of what the start waits for; sums over all ranks.")
    quiet_seconds: float | None = Field(default=None, description="Seconds since anything advanced.")
    processes: dict[str, Place] = Field(default={}, description="Where each process is.")
    startup_seconds: dict[str, float] = Field(default={}, description="As in /server_info.")
    server: ServerInfo | None = Field(
        default=None, description="As /server_info, without the launch arguments: this route needs no key."
    )
