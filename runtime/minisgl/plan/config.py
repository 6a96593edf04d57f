"""Every "auto" of the launch arguments decided, in one pure function: what the engine is going to be.

Refuses here, before a byte of the weights is read, what this version cannot do. No torch, no GPU needed.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Self

from minisgl.args import LaunchArgs
from minisgl.errors import UsageError
from minisgl.plan.model import ModelConfig, check_tensor_parallel
from minisgl.plan.shapes import SPLIT_TOKENS, Shape, decode_shapes, mixed_shapes, shared_bytes, split_bytes

# On a CPU a step of this many tokens already runs at full speed; a longer one only makes running streams wait (16 s
# for 8192 tokens of a 135M model on one core).
CPU_STEP_TOKENS = 512

FLASH = {"fa3": "fa"}  # the older spelling
FLASH_4, FLASH_3, FLASH_2, FLASHINFER = "flash-attn-4", "flash-attn-3", "flash-attn", "flashinfer-python"
# What a backend needs one of; the first is what one is told to install.
PACKAGES = {"fa": (FLASH_4, FLASH_3, FLASH_2), "fi": (FLASHINFER,)}
# Also among what is installed: the GPU's generation, a C compiler, which the native backend needs, and the
# instructions without which a CPU has no layout of its own for weights of 16 bits.
HOPPER, COMPILER, AVX512 = "sm90", "cc", "avx512"
FLASH_GPUS = (HOPPER, "sm100", "sm110")  # FlashAttention is ahead of FlashInfer there, at prompts
EVERYTHING = (FLASH_4, FLASHINFER, HOPPER, COMPILER, AVX512)  # what a plan for another machine supposes

# Unless told otherwise, the largest decode batch that is captured in a CUDA graph.
GRAPH_BATCH = 256
# Longer steps keep the device busy while they are launched one kernel after the other.
GRAPH_TOKENS = 4096
LIBRARY_BYTES = 1400 * 2**20  # of a GPU, for kernels and workspaces: 1.4 to 1.8 GB on an H200 beside a step's own
GRAPH_BYTES = 8 * 2**20  # the driver's, for one graph of some hundred kernels

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1}


@dataclass(frozen=True)
class EngineConfig:
    """The engine's decisions; what depends on free memory is decided in `engine.memory`, after loading."""

    model: ModelConfig
    device: str
    dtype: str
    cache_dtype: str
    attention_backend: str
    tensor_parallel_size: int
    context_length: int
    max_running_requests: int
    max_step_tokens: int
    page_size: int
    cache_type: str
    memory_ratio: float
    num_pages: int | None
    num_tokens: int | None
    dummy_weights: bool
    overlap: bool
    graph_max_batch: int  # 0: no CUDA graphs
    graph_max_tokens: int  # of other captured steps; 0: none
    splits_prompts: bool  # in captured steps, whatever their size
    keeps_copy: bool  # of a tied embedding: one to look up in, one laid out for products

    @classmethod
    def resolve(
        cls, args: LaunchArgs, model: ModelConfig, device: str, installed: Container[str] = (FLASHINFER,)
    ) -> Self:
        """Decide for `device` ("cpu" or "cuda"); UsageError or StartError says which flag cannot work.

        `installed`: names of the packages in PACKAGES that can be imported, the GPU's ("sm90"), COMPILER and AVX512.
        """
        check_tensor_parallel(model, args.tensor_parallel_size)
        dtype = _dtype(args.dtype, model, device)
        cache_dtype = {"auto": dtype, "fp8": "float8_e4m3fn"}[args.kv_cache_dtype]
        attention = _attention(args.attention_backend, device, dtype, cache_dtype, installed)
        graph_batch = _graphs(args, model, device, attention)
        names = attention.split(",")
        return cls(
            model=model,
            device=device,
            dtype=dtype,
            cache_dtype=cache_dtype,
            attention_backend=attention,
            tensor_parallel_size=args.tensor_parallel_size,
            context_length=_context(args.max_seq_len_override, model),
            max_running_requests=args.max_running_requests,
            max_step_tokens=min(
                args.max_prefill_length, CPU_STEP_TOKENS if device == "cpu" else args.max_prefill_length
            ),
            page_size=args.page_size,
            cache_type=args.cache_type,
            memory_ratio=args.memory_ratio,
            num_pages=args.num_pages,
            num_tokens=args.num_tokens,
            dummy_weights=args.dummy_weight,
            # On a CPU, scheduler and engine would take the cores from each other.
            overlap=args.overlap == "on" or (args.overlap == "auto" and device == "cuda"),
            graph_max_batch=graph_batch,
            graph_max_tokens=min(GRAPH_TOKENS, args.max_prefill_length) if graph_batch and "torch" not in names else 0,
            splits_prompts=names[0] == "fi" and (cache_dtype != dtype or HOPPER not in installed),
            keeps_copy=model.tied_embeddings and device == "cpu" and (dtype == "float32" or AVX512 in installed),
        )

    @property
    def num_rows(self) -> int:
        """Requests that can run at the same time: in a full step each has one token."""
        return min(self.max_running_requests, self.max_step_tokens)

    @property
    def num_kv_heads(self) -> int:
        """On one rank: with more ranks than KV heads, each is kept on several."""
        return max(1, self.model.num_kv_heads // self.tensor_parallel_size)

    @property
    def token_bytes(self) -> int:
        """Bytes of one token in the KV cache of one rank: keys and values of all layers."""
        return 2 * self.model.num_layers * self.num_kv_heads * self.model.head_dim * BYTES[self.cache_dtype]

    @property
    def page_bytes(self) -> int:
        return self.token_bytes * self.page_size

    @property
    def graph_shapes(self) -> list[Shape]:
        """The steps to capture."""
        shared = self.attention_backend.split(",")[-1] == "fi" and self.cache_dtype == self.dtype
        decode = decode_shapes(self.graph_max_batch, shared=shared)
        return decode + mixed_shapes(self.graph_max_tokens, self.graph_max_batch)

    @property
    def graph_bytes(self) -> int:
        """What captured steps keep on one rank: each its logits and itself, all together one step's activations."""
        logits = sum(shape.requests for shape in self.graph_shapes) * self.model.vocab_size * BYTES[self.dtype]
        model, ranks = self.model, self.tensor_parallel_size
        most = self.graph_max_tokens if self.splits_prompts else SPLIT_TOKENS
        sizes = [(shape.tokens, shape.prompts) for shape in self.graph_shapes if shape.prompts and shape.tokens <= most]
        heads = model.num_heads // ranks, self.num_kv_heads, model.head_dim
        split = split_bytes(sizes, *heads) if sizes else 0
        split = max(split, *(shared_bytes(shape.requests, *heads) for shape in self.graph_shapes if shape.is_shared), 0)
        return logits + split + self.graph_max_tokens * self._step_width + len(self.graph_shapes) * GRAPH_BYTES

    @property
    def working_bytes(self) -> int:
        """Upper estimate of one step's activations on one rank, beside weights and KV cache.

        The widest moment of a layer holds the residual, its normed copy and the fused products of the MLP (or the
        projections of attention, which are narrower in all served models); the sampler holds logits three times.
        """
        model, tokens = self.model, self.max_step_tokens
        logits = 3 * 4 * min(self.max_running_requests, tokens) * model.vocab_size
        mask = tokens * min(tokens, self.context_length)
        libraries = LIBRARY_BYTES if self.device == "cuda" else 0
        return tokens * self._step_width + logits + mask + libraries

    @property
    def _step_width(self) -> int:
        """Bytes of a token's activations."""
        model = self.model
        return (4 * model.hidden_size + 4 * model.intermediate_size // self.tensor_parallel_size) * BYTES[self.dtype]


def _dtype(wanted: str, model: ModelConfig, device: str) -> str:
    if device == "cpu" and wanted == "float16":
        raise UsageError("--dtype float16 on a CPU is hundreds of times slower than float32; use float32 or bfloat16")
    if wanted != "auto":
        return wanted
    return "float32" if device == "cpu" or model.dtype not in BYTES else model.dtype


def _attention(wanted: str, device: str, dtype: str, cache_dtype: str, installed: Container[str]) -> str:
    """One name, or "prefill,decode" where they differ."""
    has = {name for name, packages in PACKAGES.items() if any(package in installed for package in packages)}
    automatic = ["torch"]
    if device == "cpu" and COMPILER in installed and cache_dtype == dtype:
        automatic = ["native"]
    elif device == "cuda" and dtype != "float32" and "fi" in has:
        takes_flash = "fa" in has and any(gpu in installed for gpu in FLASH_GPUS) and cache_dtype == dtype
        automatic = ["fa", "fi"] if takes_flash else ["fi"]
    halves = wanted.split(",")
    ends = (automatic[0], automatic[-1])[: len(halves)]  # what "auto" stands for in either half of a pair
    names = [end if name == "auto" else FLASH.get(name, name) for name, end in zip(halves, ends, strict=True)]
    names = automatic if wanted == "auto" else names
    chosen = sorted(set(names) & PACKAGES.keys())
    if chosen and device == "cpu":
        needs = " and ".join(f"{name} needs an NVIDIA GPU and the package {PACKAGES[name][0]}" for name in chosen)
        raise UsageError(f"--attention-backend {wanted}: {needs}, and this is a CPU; use --attention-backend torch")
    if device != "cpu" and "native" in names:
        raise UsageError(f"--attention-backend {wanted}: native is for a CPU; use fi, torch or auto")
    if cache_dtype != dtype and (unable := {"native", "fa"} & set(names)):
        instead = "fi" if "fa" in unable else "torch"
        raise UsageError(
            f"--attention-backend {wanted}: {unable.pop()} reads a KV cache in the model's own format only; "
            f"use --attention-backend {instead}, or --kv-cache-dtype auto"
        )
    if chosen and dtype == "float32":
        raise UsageError(
            f"--attention-backend {wanted}: {', '.join(chosen)} computes in 16 bits only; "
            "use --dtype bfloat16, or --attention-backend torch"
        )
    if absent := [PACKAGES[name][0] for name in chosen if name not in has]:
        raise UsageError(
            f"--attention-backend {wanted}: the package {absent[0]} is not installed; "
            "pip install minisgl[gpu], or use --attention-backend torch"
        )
    return names[0] if len(set(names)) == 1 else ",".join(names)


def _graphs(args: LaunchArgs, model: ModelConfig, device: str, attention: str) -> int:
    """The largest batch to capture: a CPU has no graphs, and the shapes of the torch backend and of experts change with
    every step.
    """
    if device == "cpu" or attention.split(",")[-1] == "torch" or model.experts is not None:
        return 0
    rows = min(args.max_running_requests, args.max_prefill_length)
    return min(rows, GRAPH_BATCH if args.cuda_graph_max_bs is None else args.cuda_graph_max_bs)


def _context(wanted: int | None, model: ModelConfig) -> int:
    if wanted is not None and wanted > model.context_length:
        raise UsageError(
            f"--max-seq-len-override {wanted} is longer than the model's context of {model.context_length} tokens; "
            "it can only be shortened"
        )
    return wanted or model.context_length
