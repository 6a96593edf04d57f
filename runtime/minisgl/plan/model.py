"""What a checkpoint's config.json says of its model, as one frozen value. No weights.

Reads what all families share; what a family reads otherwise stands in `families`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from minisgl.errors import StartError
from minisgl.plan import families
from minisgl.plan.families import Settings, unsupported
from minisgl.plan.rope import RopeConfig, YarnRope, read_rope
from minisgl.termination import Reason

# No model comes near these. A file that says more is wrong, and would keep whoever counts its layers busy for ever.
MOST_LAYERS, MOST = 2**13, 2**24
MOST_RANKS = 64  # as many as the launch arguments allow


@dataclass(frozen=True)
class ExpertsConfig:
    """A mixture of experts: in `layers`, each token goes through `per_token` of `num` small MLPs."""

    num: int
    per_token: int
    width: int  # of one expert
    normalised: bool  # the chosen experts' weights are scaled to the sum 1
    layers: frozenset[int]

    def __post_init__(self) -> None:
        _bound(self, "num", "per_token", "width")


@dataclass(frozen=True)
class ModelConfig:
    """The shape of one decoder-only model."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int  # of a dense MLP; with experts, about what one token's experts have together
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
    experts: ExpertsConfig | None = None

    def __post_init__(self) -> None:
        _bound(self, "num_layers", most=MOST_LAYERS)
        _bound(self, "intermediate_size", least=0)
        _bound(self, "vocab_size", "hidden_size", "num_heads", "num_kv_heads", "head_dim", "context_length")

    @classmethod
    def read(cls, folder: Path) -> ModelConfig:
        """Read config.json and, for end tokens, generation_config.json."""
        path = folder / "config.json"
        settings, generation = _read_json(path), _read_json(folder / "generation_config.json", optional=True)
        try:
            adapt = families.find((settings.get("architectures") or ["none named"])[0])
            _refuse_what_no_family_serves(settings)
            return adapt(_parse(settings, generation), settings)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            what = f"has no {error}" if isinstance(error, KeyError) else f"has a value that cannot be used: {error}"
            raise StartError(
                Reason.MODEL_LOAD_FAILED, f"{path} {what}; check that the checkpoint is complete"
            ) from error

    @property
    def mlp_widths(self) -> list[int]:
        """The widths that ranks divide among themselves: of dense layers and of experts, whichever there are."""
        if self.experts is None:
            return [self.intermediate_size]
        dense = len(self.experts.layers) < self.num_layers
        return [self.experts.width, self.intermediate_size] if dense else [self.experts.width]


def _bound(config: object, *names: str, least: int = 1, most: int = MOST) -> None:
    """ValueError for a number that no model can have."""
    for name in names:
        if not least <= getattr(config, name) <= most:
            raise ValueError(f"{name} is {getattr(config, name)}, and must be between {least} and {most}")


def check_tensor_parallel(config: ModelConfig, size: int) -> None:
    """Refuse a number of ranks that the model cannot be divided by; called before weights are read.

    KV heads need not divide: with more ranks than KV heads each is kept on several ranks. The vocabulary is padded.
    """
    if _divides(config, size):
        return
    works = [n for n in range(1, MOST_RANKS + 1) if _divides(config, n)]
    heads = f"{config.num_heads} attention heads and {config.num_kv_heads} KV heads"
    kind = "MLP" if config.experts is None else "expert"
    widths = " and ".join(map(str, config.mlp_widths))
    raise StartError(
        Reason.INVALID_ARGUMENTS,
        f"--tensor-parallel-size {size} does not divide the model's {heads} ({kind} width {widths}); "
        f"sizes that work: {', '.join(map(str, works))}",
    )


def _divides(config: ModelConfig, n: int) -> bool:
    kv = config.num_kv_heads
    return (
        config.num_heads % n == 0
        and all(width % n == 0 for width in config.mlp_widths)
        and (kv % n == 0 or n % kv == 0)
    )


def _refuse_what_no_family_serves(settings: Settings) -> None:
    if settings.get("hidden_act", "silu") != "silu":
        raise unsupported(f"hidden_act {settings['hidden_act']!r}", "this version computes silu")
    if settings.get("quantization_config"):
        raise unsupported("a quantized checkpoint", "use one in bfloat16, float16 or float32")
    if settings.get("use_sliding_window") or set(settings.get("layer_types") or ()) - {"full_attention"}:
        raise unsupported("sliding-window attention", "use a model that attends to its whole context")


def _parse(settings: Settings, generation: Settings) -> ModelConfig:
    num_heads, hidden = int(settings["num_attention_heads"]), int(settings["hidden_size"])
    bias = bool(settings.get("attention_bias", False))
    rope, context = read_rope(settings), int(settings["max_position_embeddings"])
    if isinstance(rope, YarnRope):
        # Model cards say to add only `rope_scaling`, beside a context that was written down before.
        context = max(context, int(rope.factor * rope.original_context))
    return ModelConfig(
        architecture=settings["architectures"][0],
        vocab_size=int(settings["vocab_size"]),
        hidden_size=hidden,
        intermediate_size=int(settings["intermediate_size"]),
        num_layers=int(settings["num_hidden_layers"]),
        num_heads=num_heads,
        num_kv_heads=int(settings.get("num_key_value_heads") or num_heads),
        head_dim=int(settings.get("head_dim") or hidden // num_heads),
        context_length=context,
        norm_eps=float(settings.get("rms_norm_eps", 1e-6)),
        rope=rope,
        tied_embeddings=bool(settings.get("tie_word_embeddings", False)),
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=bool(settings.get("mlp_bias", False)),
        qk_norm=False,
        dtype=str(settings.get("dtype") or settings.get("torch_dtype") or "float32"),
        # The generation config is the later word: chat models name the end of a turn only there.
        eos_token_ids=_token_ids(generation.get("eos_token_id")) or _token_ids(settings.get("eos_token_id")),
    )


def _token_ids(value: int | Iterable[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(int(v) for v in value)


def _read_json(path: Path, *, optional: bool = False) -> Settings:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        if path.is_symlink():
            raise StartError(
                Reason.MODEL_LOAD_FAILED,
                f"{path} is a link to {path.readlink()}, which does not exist; download the model again",
            ) from error
        if optional:
            return {}
        raise StartError(
            Reason.MODEL_NOT_FOUND,
            f"{path.parent} holds no {path.name}; --model-path must name a folder in Hugging Face's layout",
        ) from error
    except PermissionError as error:
        raise StartError(Reason.MODEL_LOAD_FAILED, f"{path} may not be read by this user; grant it") from error
    except (OSError, ValueError, RecursionError) as error:
        raise StartError(Reason.MODEL_LOAD_FAILED, f"{path} cannot be read: {error}; download it again") from error
    if not isinstance(content, dict):
        raise StartError(Reason.MODEL_LOAD_FAILED, f"{path} is not a JSON object; download it again")
    return content
