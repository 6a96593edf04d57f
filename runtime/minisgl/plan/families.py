"""What each family reads of its config.json otherwise than all others do. `models.registry` names the same families."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from minisgl.errors import StartError
from minisgl.termination import Reason

if TYPE_CHECKING:
    from minisgl.plan.model import ModelConfig

Settings = Mapping[str, Any]  # config.json
Adapt = Callable[["ModelConfig", Settings], "ModelConfig"]


def find(architecture: str) -> Adapt:
    """How the family of an architecture reads its own settings; StartError names the families that there are."""
    if architecture not in FAMILIES:
        raise StartError(
            Reason.UNSUPPORTED_MODEL,
            f"the model has architecture {architecture}, which cannot be served; this version serves "
            f"{', '.join(FAMILIES)}",
        )
    return FAMILIES[architecture]


def unsupported(what: str, instead: str) -> StartError:
    """The refusal of a model that the engine would compute wrongly."""
    return StartError(Reason.UNSUPPORTED_MODEL, f"the model has {what}, which cannot be served; {instead}")


def _as_it_stands(config: ModelConfig, settings: Settings) -> ModelConfig:
    return config


def _without_window(config: ModelConfig, settings: Settings) -> ModelConfig:
    window = settings.get("sliding_window")
    if window is not None and window < config.context_length:
        raise unsupported(
            f"sliding-window attention over {window} of its {config.context_length} tokens of context",
            "use a version whose config.json has no sliding_window",
        )
    return config


def _qwen2(config: ModelConfig, settings: Settings) -> ModelConfig:
    """Biases on queries, keys and values, whatever config.json says."""
    return replace(config, qkv_bias=True, output_bias=False)


def _qwen3(config: ModelConfig, settings: Settings) -> ModelConfig:
    return replace(config, qk_norm=True)


def _qwen3_moe(config: ModelConfig, settings: Settings) -> ModelConfig:
    """Every `decoder_sparse_step`-th layer has experts, unless `mlp_only_layers` names it."""
    from minisgl.plan.model import ExpertsConfig

    config = _qwen3(config, settings)
    # Transformers 5 writes `num_local_experts`; the published checkpoints say `num_experts`.
    num = int(settings["num_experts"] if "num_experts" in settings else settings["num_local_experts"])
    step, dense = int(settings.get("decoder_sparse_step", 1)), set(settings.get("mlp_only_layers") or ())
    layers = frozenset(i for i in range(config.num_layers) if (i + 1) % step == 0 and i not in dense)
    if not (num and layers):
        return config
    experts = ExpertsConfig(
        num=num,
        per_token=int(settings["num_experts_per_tok"]),
        width=int(settings["moe_intermediate_size"]),
        normalised=bool(settings.get("norm_topk_prob", False)),
        layers=layers,
    )
    return replace(config, experts=experts)


FAMILIES: dict[str, Adapt] = {
    "LlamaForCausalLM": _as_it_stands,
    "MistralForCausalLM": _without_window,
    "Qwen2ForCausalLM": _qwen2,
    "Qwen3ForCausalLM": _qwen3,
    "Qwen3MoeForCausalLM": _qwen3_moe,
}
