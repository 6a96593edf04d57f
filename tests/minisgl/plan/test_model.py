"""config.json in its spellings, and the sentences for what cannot be served."""

import json
from pathlib import Path
from typing import Any

import pytest

from minisgl.errors import StartError
from minisgl.plan.model import ExpertsConfig, ModelConfig, check_tensor_parallel
from minisgl.plan.rope import Llama3Rope, RopeConfig, YarnRope
from minisgl.termination import Reason

PLAIN: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rope_theta": 5000.0,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def read(folder: Path, generation: dict[str, Any] | None = None, **changes: Any) -> ModelConfig:
    config = {key: value for key, value in (PLAIN | changes).items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return ModelConfig.read(folder)


def test_a_plain_config_is_read(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert (config.head_dim, config.num_kv_heads, config.rope) == (8, 2, RopeConfig(5000.0))
    assert (config.qkv_bias, config.qk_norm, config.tied_embeddings, config.dtype) == (False, False, False, "float32")


def test_both_spellings_of_rotary_settings_mean_the_same(tmp_path: Path) -> None:
    flat = read(tmp_path, rope_scaling=LLAMA3)
    nested = read(tmp_path, rope_theta=..., rope_parameters=LLAMA3 | {"rope_theta": 5000.0})
    assert (
        flat.rope
        == nested.rope
        == Llama3Rope(5000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=64)
    )


def test_yarn_stretches_the_context_that_a_config_may_still_give_unstretched(tmp_path: Path) -> None:
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    config = read(tmp_path, rope_scaling=yarn)
    assert config.rope == YarnRope(5000.0, factor=4.0, original_context=256)
    assert config.context_length == 1024
    assert read(tmp_path, rope_scaling=yarn, max_position_embeddings=1024) == config
    derived = read(tmp_path, rope_scaling=yarn | {"factor": None}, max_position_embeddings=1024)
    assert derived == config, "the factor is the ratio of the contexts"


@pytest.mark.parametrize(
    ("architecture", "qkv", "out", "norm"),
    [
        ("LlamaForCausalLM", True, True, False),
        ("Qwen2ForCausalLM", True, False, False),
        ("Qwen3ForCausalLM", True, True, True),
        ("MistralForCausalLM", True, True, False),
    ],
)
def test_families_differ_in_biases_and_norms(
    architecture: str, qkv: bool, out: bool, norm: bool, tmp_path: Path
) -> None:
    config = read(tmp_path, architectures=[architecture], attention_bias=True)
    assert (config.qkv_bias, config.output_bias, config.qk_norm) == (qkv, out, norm)


def test_layers_with_experts_are_those_that_the_checkpoint_names(tmp_path: Path) -> None:
    moe: dict[str, Any] = {
        "architectures": ["Qwen3MoeForCausalLM"],
        "num_hidden_layers": 6,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
    }
    experts = ExpertsConfig(8, 2, 24, normalised=False, layers=frozenset(range(6)))
    assert read(tmp_path, **moe).experts == experts
    assert read(tmp_path, **(moe | {"num_experts": ..., "num_local_experts": 8})).experts == experts
    sparse = read(tmp_path, **moe, decoder_sparse_step=2, mlp_only_layers=[3], norm_topk_prob=True)
    assert sparse.experts == ExpertsConfig(8, 2, 24, normalised=True, layers=frozenset({1, 5}))
    assert (sparse.mlp_widths, read(tmp_path, **moe).mlp_widths) == ([24, 96], [24])
    assert read(tmp_path, **moe, mlp_only_layers=list(range(6))).experts is None


def test_ranks_must_divide_each_experts_width(tmp_path: Path) -> None:
    moe: dict[str, Any] = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 6}
    config = read(tmp_path, architectures=["Qwen3MoeForCausalLM"], **moe)
    check_tensor_parallel(config, 2)
    with pytest.raises(StartError, match=r"size 4 does not divide.*expert width 6\); sizes that work: 1, 2$"):
        check_tensor_parallel(config, 4)


def test_a_window_that_holds_the_whole_context_is_none(tmp_path: Path) -> None:
    for window in (None, 256):
        read(tmp_path, architectures=["MistralForCausalLM"], sliding_window=window)
    read(tmp_path, sliding_window=64)  # the other families do not use it


def test_end_tokens_come_from_the_generation_config_first(tmp_path: Path) -> None:
    assert read(tmp_path).eos_token_ids == (2,)
    assert read(tmp_path, {"eos_token_id": [7, 9]}).eos_token_ids == (7, 9)
    assert read(tmp_path, {}).eos_token_ids == (2,)
    assert read(tmp_path, {}, eos_token_id=...).eos_token_ids == ()


@pytest.mark.parametrize(
    ("changes", "reason", "sentence"),
    [
        ({"architectures": ["T5Model"]}, Reason.UNSUPPORTED_MODEL, "architecture T5Model.*serves LlamaForCausalLM"),
        ({"architectures": ...}, Reason.UNSUPPORTED_MODEL, "architecture none named"),
        ({"architectures": 5}, Reason.MODEL_LOAD_FAILED, "value that cannot be used"),
        ({"hidden_act": "gelu"}, Reason.UNSUPPORTED_MODEL, "hidden_act 'gelu'"),
        ({"quantization_config": {"bits": 4}}, Reason.UNSUPPORTED_MODEL, "quantized"),
        ({"use_sliding_window": True}, Reason.UNSUPPORTED_MODEL, "sliding-window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, Reason.UNSUPPORTED_MODEL, "sliding-window"),
        (
            {"architectures": ["MistralForCausalLM"], "sliding_window": 64},
            Reason.UNSUPPORTED_MODEL,
            "sliding-window attention over 64 of its 256 tokens",
        ),
        ({"rope_scaling": {"type": "longrope"}}, Reason.UNSUPPORTED_MODEL, "type 'longrope'.*llama3 and yarn"),
        ({"partial_rotary_factor": 0.5}, Reason.UNSUPPORTED_MODEL, "a share of 0.5 of each head"),
        ({"rope_scaling": {"type": "llama3"}}, Reason.MODEL_LOAD_FAILED, "config.json has no 'factor'"),
        ({"num_attention_heads": 0}, Reason.MODEL_LOAD_FAILED, "value that cannot be used.*zero"),
        ({"vocab_size": ...}, Reason.MODEL_LOAD_FAILED, "config.json has no 'vocab_size'"),
        ({"hidden_size": "wide"}, Reason.MODEL_LOAD_FAILED, "value that cannot be used.*wide"),
    ],
)
def test_what_cannot_be_served_is_said(changes: dict[str, Any], reason: Reason, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(StartError, match=sentence) as caught:
        read(tmp_path, **changes)
    assert caught.value.reason is reason


def test_a_folder_without_a_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=f"{tmp_path} holds no config.json") as caught:
        ModelConfig.read(tmp_path)
    assert caught.value.reason is Reason.MODEL_NOT_FOUND


def test_a_broken_config_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(StartError, match="cannot be read"):
        ModelConfig.read(tmp_path)


def test_what_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(tmp_path)
    (tmp_path / "generation_config.json").symlink_to(tmp_path.parent / "blobs" / "gone")
    with pytest.raises(StartError, match=r"generation_config.json is a link to .*gone, which does not exist"):
        ModelConfig.read(tmp_path)

    def denied(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(StartError, match=r"config.json may not be read by this user"):
        ModelConfig.read(tmp_path)


@pytest.mark.parametrize("size", [0, -1, 10**12])
@pytest.mark.parametrize("key", ["num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings"])
def test_a_number_that_no_model_has_is_refused_at_once(key: str, size: int, tmp_path: Path) -> None:
    with pytest.raises(StartError, match="a value that cannot be used") as raised:
        read(tmp_path, **{key: size, "head_dim": 4})
    assert raised.value.reason is Reason.MODEL_LOAD_FAILED


def test_ranks_must_divide_the_heads(tmp_path: Path) -> None:
    config = read(tmp_path)
    for size in (1, 2, 4, 8):
        check_tensor_parallel(config, size)
    with pytest.raises(StartError, match=r"size 3 does not divide.* 8 attention heads.*sizes that work: 1, 2, 4, 8"):
        check_tensor_parallel(config, 3)
