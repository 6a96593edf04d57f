"""The launch arguments of one MiniSGL server: the only place where an argument is written.

Everything else is derived: the command line (`argv`), the CRD's `spec.runtime`, the charts' value schemas and the
tables in the docs (`schema`). A field `max_running_requests` is the flag `--max-running-requests` and the key
`maxRunningRequests`; aliases exist on the command line only; booleans default to false; None means "derived at start".
This module imports no torch, so that `--help` answers at once and the operator's image stays small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

BACKEND = r"(auto|torch|native|fa|fa3|fi)"  # `fa3` is the older spelling of `fa`


# A chat in a terminal is one request at a time, and log lines would run through its words.
SHELL = {"cuda_graph_max_bs": 1, "max_running_requests": 1, "silent_output": True}


@dataclass(frozen=True)
class Flag:
    """How a field looks on the command line. `cli_only` fields are set by the operator, never in `spec.runtime`."""

    group: str
    help: str
    aliases: tuple[str, ...] = ()
    unit: str = ""  # what stands behind the flag in `--help`; choices stand there by themselves
    cli_only: bool = False


def flag(group: str, text: str, *aliases: str, unit: str = "", cli_only: bool = False) -> Flag:
    """Describe one field; it reads as a sentence at the definition below."""
    return Flag(group, text, aliases, unit, cli_only)


class LaunchArgs(BaseModel):
    """How to launch one server. Immutable; unknown names are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        protected_namespaces=(),
        allow_inf_nan=False,
        use_attribute_docstrings=False,
    )

    # Model
    model_path: Annotated[
        str,
        Field(min_length=1),
        flag(
            "Model",
            "Where the model is: a local folder, a Hugging Face id (org/name[@revision]), or s3://bucket/folder.",
            "--model",
            unit="MODEL",
            cli_only=True,
        ),
    ]
    served_model_name: Annotated[
        str | None,
        Field(min_length=1),
        flag("Model", "Name clients ask for. Unset: the model path.", unit="NAME", cli_only=True),
    ] = None
    dtype: Annotated[
        Literal["auto", "float16", "bfloat16", "float32"],
        flag(
            "Model",
            "Number format of weights, activations and KV cache: float16, bfloat16, float32, or auto, the model's own "
            "(on a CPU float32).",
            "--precision",
        ),
    ] = "auto"
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        flag("Model", "Where the model runs. auto: cuda when a GPU is there, else cpu.", cli_only=True),
    ] = "auto"
    dummy_weight: Annotated[
        bool,
        flag("Model", "Random weights: needs only config and tokenizer; for measuring speed."),
    ] = False
    max_seq_len_override: Annotated[
        int | None,
        Field(ge=1, le=2**24),
        flag("Model", "Longest prompt plus answer, in tokens. Unset: the model's own limit.", unit="TOKENS"),
    ] = None

    # Parallelism
    tensor_parallel_size: Annotated[
        int,
        Field(ge=1, le=64),
        flag("Parallelism", "Devices (ranks) that share the model.", "--tp-size", "--tp", unit="RANKS"),
    ] = 1
    disable_pynccl: Annotated[
        bool,
        flag("Parallelism", "Use torch.distributed in place of our own NCCL binding."),
    ] = False

    # Memory
    memory_ratio: Annotated[
        float,
        Field(ge=0.05, le=0.99),
        flag("Memory", "Share of the device's free memory for weights and KV cache.", unit="SHARE"),
    ] = 0.9
    num_pages: Annotated[
        int | None,
        Field(ge=2, le=2**31 - 1),
        flag("Memory", "Upper limit on the KV cache, in pages of --page-size tokens.", unit="PAGES"),
    ] = None
    num_tokens: Annotated[
        int | None,
        Field(ge=2, le=2**31 - 1),
        flag("Memory", "Upper limit on the KV cache, in tokens. Not together with --num-pages.", unit="TOKENS"),
    ] = None
    page_size: Annotated[
        int,
        Field(ge=1, le=256),
        flag("Memory", "Tokens in one page of the KV cache.", unit="TOKENS"),
    ] = 16
    kv_cache_dtype: Annotated[
        Literal["auto", "fp8"],
        flag(
            "Memory",
            "Number format of the KV cache. auto: as --dtype; fp8: e4m3, half of 16 bits, answers change a little.",
        ),
    ] = "auto"
    cache_type: Annotated[
        Literal["radix", "naive"],
        flag("Memory", "Prefix cache. radix: prompts share pages of equal prefixes; naive: no reuse.", "--cache"),
    ] = "radix"

    # Scheduling
    max_running_requests: Annotated[
        int,
        Field(ge=1, le=4096),
        flag("Scheduling", "Requests that are computed at the same time.", unit="REQUESTS"),
    ] = 256
    max_prefill_length: Annotated[
        int,
        Field(ge=1, le=2**20),
        flag(
            "Scheduling",
            "Tokens computed in one step; longer prompts are cut into chunks.",
            "--max-extend-length",
            unit="TOKENS",
        ),
    ] = 4096
    overlap: Annotated[
        Literal["auto", "on", "off"],
        flag(
            "Scheduling", "Decide the next step while the device computes this one: on, off, or auto (on with a GPU)."
        ),
    ] = "auto"
    max_queued_requests: Annotated[
        int,
        Field(ge=1, le=2**20),
        flag("Scheduling", "Requests that may wait; one more is answered 503 with Retry-After.", unit="REQUESTS"),
    ] = 1024

    # Kernels
    attention_backend: Annotated[
        str,
        Field(pattern=rf"^{BACKEND}(,{BACKEND})?$"),
        flag(
            "Kernels",
            "One backend, or prefill,decode: fa (fa3) FlashAttention, fi FlashInfer, torch, native (a CPU), auto.",
            "--attn",
            unit="NAME[,NAME]",
        ),
    ] = "auto"
    cuda_graph_max_bs: Annotated[
        int | None,
        Field(ge=0, le=4096),
        flag(
            "Kernels",
            "Largest decode batch captured in a CUDA graph. 0: none. Unset: by free memory.",
            "--graph",
            unit="REQUESTS",
        ),
    ] = None

    # Server
    host: Annotated[
        str,
        Field(min_length=1),
        flag("Server", "Address to listen on; 0.0.0.0 for all.", unit="ADDRESS", cli_only=True),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Field(ge=0, le=65535),
        flag("Server", "Port to listen on. 0: a free one, printed at start.", unit="PORT", cli_only=True),
    ] = 1919
    api_key_file: Annotated[
        str | None,
        Field(min_length=1),
        flag(
            "Server",
            "File of keys, one per line; requests must bring one as Bearer token. Read again when it changes.",
            unit="FILE",
            cli_only=True,
        ),
    ] = None
    num_tokenizer: Annotated[
        int,
        Field(ge=0, le=64),
        flag(
            "Server",
            "Tokenizer processes beside the detokenizer. 0: one process does both jobs.",
            "--tokenizer-count",
            unit="PROCESSES",
        ),
    ] = 0
    max_body_bytes: Annotated[
        int,
        Field(ge=1024, le=2**30),
        flag("Server", "Largest request body, in bytes; a larger one is answered 413.", unit="BYTES"),
    ] = 8 * 1024 * 1024
    drain_delay_seconds: Annotated[
        int,
        Field(ge=0, le=3600),
        flag("Server", "After SIGTERM, seconds in which new requests are still accepted.", unit="SECONDS"),
    ] = 0
    drain_timeout_seconds: Annotated[
        int,
        Field(ge=0, le=86400),
        flag("Server", "After that, seconds that open requests have to finish.", unit="SECONDS"),
    ] = 30
    watchdog_timeout_seconds: Annotated[
        int,
        Field(ge=1, le=86400),
        flag(
            "Server",
            "A process that shows no life for so long hangs: its stacks are logged, the server ends.",
            unit="SECONDS",
        ),
    ] = 60
    start_stall_seconds: Annotated[
        int,
        Field(ge=1, le=86400),
        flag(
            "Server",
            "A start in which nothing advances for so long (no phase ends, no byte comes) is given up.",
            unit="SECONDS",
        ),
    ] = 1800
    tool_call_parser: Annotated[
        Literal["auto", "hermes", "qwen25", "llama3", "pythonic", "none"],
        flag(
            "Server",
            "How the model writes tool calls: in the notation of hermes, qwen25, llama3 or pythonic. "
            "auto: as its chat template tells; none: tools are refused.",
        ),
    ] = "auto"
    reasoning_parser: Annotated[
        Literal["auto", "qwen3", "deepseek-r1", "none"],
        flag(
            "Server",
            "How the model writes reasoning: as qwen3 or deepseek-r1 do. auto: as its chat template tells; "
            "none: it stays content.",
        ),
    ] = "auto"
    metrics_compat: Annotated[
        Literal["vllm", "none"],
        flag(
            "Server",
            "vllm: /metrics also shows vLLM's names, which gateways, autoscalers and dashboards ask for. none: ours.",
        ),
    ] = "vllm"  # those tools are configured with these names and know no others; the series cost nothing until read
    silent_output: Annotated[
        bool,
        flag("Server", "No log line per scheduler step."),
    ] = False
    shell_mode: Annotated[
        bool,
        flag("Server", "Chat in this terminal in place of the HTTP server.", "--shell", cli_only=True),
    ] = False

    @model_validator(mode="after")
    def limit_the_cache_once(self) -> Self:
        """Mirror of the CEL rule in CROSS_FIELD_RULES."""
        if self.num_pages is not None and self.num_tokens is not None:
            raise ValueError("--num-pages and --num-tokens limit the same cache; give one of them")
        return self

    @model_validator(mode="after")
    def chat_with_real_weights(self) -> Self:
        if self.shell_mode and self.dummy_weight:
            raise ValueError(
                "--shell-mode with --dummy-weight: a chat with random weights answers nonsense; leave one of them out"
            )
        return self

    def resolved(self) -> Self:
        """What holds in place of what was said: the shell forces its values, also over explicit ones."""
        return self.model_copy(update=SHELL) if self.shell_mode else self


# The same rules for the API server (CEL, over `spec.runtime`): a wrong pair is refused at `kubectl apply`.
CROSS_FIELD_RULES = (
    (
        "!(has(self.numPages) && has(self.numTokens))",
        "numPages and numTokens limit the same cache; give one of them",
    ),
)


def flags() -> dict[str, Flag]:
    """Field name -> its command-line description, in the order of definition."""
    return {
        name: next(item for item in info.metadata if isinstance(item, Flag))
        for name, info in LaunchArgs.model_fields.items()
    }
