"""What a checkpoint's config.json says of its model, as one frozen value. No torch, no weights.

Both spellings of rotary settings are read: flat `rope_theta`/`rope_scaling`, and `rope_parameters`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minisgl.errors import StartError
from minisgl.termination import Reason


@dataclass(frozen=True)
class Traits:
    """How the architectures differ: three families are one decoder with switches."""

    qkv_bias: bool | None  # None: the checkpoint's `attention_bias` decides
    qk_norm: bool


ARCHITECTURES = {
    "LlamaForCausalLM": Traits(qkv_bias=None, qk_norm=False),
    "Qwen2ForCausalLM": Traits(qkv_bias=True, qk_norm=False),
    "Qwen3ForCausalLM": Traits(qkv_bias=None, qk_norm=True),
}


@dataclass(frozen=True)
class RopeConfig:
    """Rotary positions. `llama3` stretches low frequencies by `factor`; the other fields are its band limits."""

    theta: float = 10000.0
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@dataclass(frozen=True)
class ModelConfig:
    """The shape of one decoder-only model."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context_length: int
    norm_eps: float
    rope: RopeConfig
    tied_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    dtype: str
    eos_token_ids: tuple[int, ...]

    @classmethod
    def read(cls, folder: Path) -> ModelConfig:
        """Read config.json and, for end tokens, generation_config.json."""
        config = _read_json(folder / "config.json")
        generation = (
            _read_json(folder / "generation_config.json") if (folder / "generation_config.json").exists() else {}
        )
        try:
            return _parse(config, generation)
        except (KeyError, TypeError, ValueError) as error:
            what = f"has no {error}" if isinstance(error, KeyError) else f"has a value that cannot be used: {error}"
            raise StartError(
                Reason.MODEL_LOAD_FAILED, f"{folder / 'config.json'} {what}; check that the checkpoint is complete"
            ) from error


def check_tensor_parallel(config: ModelConfig, size: int) -> None:
    """Refuse a number of ranks that the model's heads cannot be divided by; called before weights are read.

    KV heads need not divide: with more ranks than KV heads each is kept on several ranks. The vocabulary is padded.
    """
    works = [n for n in range(1, config.num_heads + 1) if _divides(config, n)]
    if size in works:
        return
    heads = f"{config.num_heads} attention heads and {config.num_kv_heads} KV heads"
    raise StartError(
        Reason.INVALID_ARGUMENTS,
        f"--tensor-parallel-size {size} does not divide the model's {heads} (MLP width {config.intermediate_size}); "
        f"sizes that work: {', '.join(map(str, works))}",
    )


def _divides(config: ModelConfig, n: int) -> bool:
    kv = config.num_kv_heads
    return config.num_heads % n == 0 and config.intermediate_size % n == 0 and (kv % n == 0 or n % kv == 0)


def _parse(config: dict[str, Any], generation: dict[str, Any]) -> ModelConfig:
    architecture = (config.get("architectures") or ["none named"])[0]
    traits = ARCHITECTURES.get(architecture)
    if traits is None:
        raise _unsupported(f"architecture {architecture}", f"this version serves {', '.join(ARCHITECTURES)}")
    if config.get("hidden_act", "silu") != "silu":
        raise _unsupported(f"hidden_act {config['hidden_act']!r}", "this version computes silu")
    if config.get("quantization_config"):
        raise _unsupported("a quantized checkpoint", "use one in bfloat16, float16 or float32")
    if config.get("use_sliding_window"):
        raise _unsupported("sliding-window attention", "use a model that attends to its whole context")
    num_heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    bias = bool(config.get("attention_bias", False))
    return ModelConfig(
        architecture=architecture,
        vocab_size=int(config["vocab_size"]),
        hidden_size=hidden,
        intermediate_size=int(config["intermediate_size"]),
        num_layers=int(config["num_hidden_layers"]),
        num_heads=num_heads,
        num_kv_heads=int(config.get("num_key_value_heads") or num_heads),
        head_dim=int(config.get("head_dim") or hidden // num_heads),
        context_length=int(config["max_position_embeddings"]),
        norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        rope=_parse_rope(config),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=bias if traits.qkv_bias is None else traits.qkv_bias,
        output_bias=bias and traits.qkv_bias is None,
        mlp_bias=bool(config.get("mlp_bias", False)),
        qk_norm=traits.qk_norm,
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
        # The generation config is the later word: chat models name the end of a turn only there.
        eos_token_ids=_token_ids(generation.get("eos_token_id")) or _token_ids(config.get("eos_token_id")),
    )


def _parse_rope(config: dict[str, Any]) -> RopeConfig:
    rope: dict[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = str(rope.get("rope_type") or rope.get("type") or "default")
    theta = float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    if kind == "default":
        return RopeConfig(theta)
    if kind != "llama3":
        raise _unsupported(f"rotary embedding of type {kind!r}", "this version computes default and llama3")
    return RopeConfig(
        theta,
        kind,
        float(rope["factor"]),
        float(rope["low_freq_factor"]),
        float(rope["high_freq_factor"]),
        int(rope["original_max_position_embeddings"]),
    )


def _token_ids(value: int | Iterable[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(int(v) for v in value)


def _unsupported(what: str, instead: str) -> StartError:
    return StartError(Reason.UNSUPPORTED_MODEL, f"the model has {what}, which cannot be served; {instead}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise StartError(
            Reason.MODEL_NOT_FOUND,
            f"{path.parent} holds no {path.name}; --model-path must name a folder in Hugging Face's layout",
        ) from error
    except (OSError, ValueError) as error:
        raise StartError(Reason.MODEL_LOAD_FAILED, f"{path} cannot be read: {error}; download it again") from error
    if not isinstance(content, dict):
        raise StartError(Reason.MODEL_LOAD_FAILED, f"{path} is not a JSON object; download it again")
    return content
