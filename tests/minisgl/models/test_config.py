"""config.json in its spellings, and the sentences for what cannot be served."""

import json
from pathlib import Path
from typing import Any

import pytest

from minisgl.errors import StartError
from minisgl.models.config import ModelConfig, RopeConfig, check_tensor_parallel
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
    assert flat.rope == nested.rope == RopeConfig(5000.0, "llama3", 8.0, 1.0, 4.0, 64)


@pytest.mark.parametrize(
    ("architecture", "qkv", "out", "norm"),
    [
        ("LlamaForCausalLM", True, True, False),
        ("Qwen2ForCausalLM", True, False, False),
        ("Qwen3ForCausalLM", True, True, True),
    ],
)
def test_families_differ_in_biases_and_norms(
    architecture: str, qkv: bool, out: bool, norm: bool, tmp_path: Path
) -> None:
    config = read(tmp_path, architectures=[architecture], attention_bias=True)
    assert (config.qkv_bias, config.output_bias, config.qk_norm) == (qkv, out, norm)


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
        ({"hidden_act": "gelu"}, Reason.UNSUPPORTED_MODEL, "hidden_act 'gelu'"),
        ({"quantization_config": {"bits": 4}}, Reason.UNSUPPORTED_MODEL, "quantized"),
        ({"use_sliding_window": True}, Reason.UNSUPPORTED_MODEL, "sliding-window"),
        ({"rope_scaling": {"type": "yarn"}}, Reason.UNSUPPORTED_MODEL, "type 'yarn'"),
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


def test_ranks_must_divide_the_heads(tmp_path: Path) -> None:
    config = read(tmp_path)
    for size in (1, 2, 4, 8):
        check_tensor_parallel(config, size)
    with pytest.raises(StartError, match=r"size 3 does not divide.* 8 attention heads.*sizes that work: 1, 2, 4, 8"):
        check_tensor_parallel(config, 3)
