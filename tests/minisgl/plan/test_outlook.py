"""Verdicts: what fits, what does not and why, and a change that really makes it fit."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from minisgl.args import LaunchArgs
from minisgl.errors import StartError, UsageError
from minisgl.plan.config import AVX512, EngineConfig
from minisgl.plan.device import GPUS, free_at_start, gpu_bytes, memory_for, read_quantity
from minisgl.plan.inspection import Inspection
from minisgl.plan.model import ExpertsConfig, ModelConfig
from minisgl.plan.outlook import Change, Outlook, explain, predict, size, smallest_change
from minisgl.plan.weights import weight_bytes
from support.shapes import SMALL

GIB = 2**30
QWEN3_32B = replace(
    SMALL,
    architecture="Qwen3ForCausalLM",
    vocab_size=151936,
    hidden_size=5120,
    intermediate_size=25600,
    num_layers=64,
    num_heads=64,
    num_kv_heads=8,
    head_dim=128,
    context_length=40960,
    tied_embeddings=False,
    qk_norm=True,
)


def look(model: ModelConfig, memory: int | None, device: str = "cuda", **args: Any) -> Outlook:
    return predict(LaunchArgs(model_path="m", **args), model, device, memory)


def change(model: ModelConfig, memory: int, device: str = "cuda", **args: Any) -> Change | None:
    return smallest_change(LaunchArgs(model_path="m", **args), model, device, memory)


def test_a_32b_model_needs_two_h100() -> None:
    h100 = GPUS["h100"] * 2**20
    alone, shared = look(QWEN3_32B, h100), look(QWEN3_32B, h100, tensor_parallel_size=2)
    assert (alone.need.weights, shared.fits) == (2 * 32_762_123_264, True)
    assert shared.tokens is not None
    assert shared.tokens > 2 * (alone.tokens or 0)
    assert look(QWEN3_32B, GPUS["l40s"] * 2**20).fits is False


def test_without_the_memory_there_are_figures_and_no_verdict() -> None:
    outlook = look(QWEN3_32B, None)
    assert (outlook.fits, outlook.tokens, outlook.cache) == (None, None, None)
    assert outlook.need.weights > 60 * GIB


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("args", [{}, {"tensor_parallel_size": 2}, {"num_tokens": 64}, {"memory_ratio": 0.5}])
def test_the_least_memory_is_enough_and_less_is_not(device: str, args: dict[str, Any]) -> None:
    least = look(SMALL, None, device, **args).least_memory
    assert look(SMALL, least, device, **args).fits
    assert not look(SMALL, least - 2**20, device, **args).fits


@pytest.mark.parametrize(
    ("model", "device", "memory", "args", "wanted"),
    [
        (QWEN3_32B, "cuda", 45 * GIB, {}, Change("tensor_parallel_size", 2)),
        (QWEN3_32B, "cuda", 16 * GIB, {}, Change("tensor_parallel_size", 8)),
        (SMALL, "cuda", 4 * GIB, {"max_prefill_length": 2**20}, Change("max_prefill_length", 4096)),
    ],
)
def test_the_smallest_change_is_the_mildest_that_fits(
    model: ModelConfig, device: str, memory: int, args: dict[str, Any], wanted: Change
) -> None:
    assert look(model, memory, device, **args).fits is False
    found = change(model, memory, device, **args)
    assert found == wanted
    assert look(model, memory, device, **(args | {found.field: found.value})).fits


def test_half_the_bytes_are_proposed_where_float32_is_too_much() -> None:
    model = replace(QWEN3_32B, num_layers=4)
    found = change(model, 12 * GIB, "cpu")
    assert found == Change("dtype", "bfloat16")


def test_nothing_is_proposed_where_only_more_memory_helps() -> None:
    assert change(QWEN3_32B, GIB, "cpu") is None
    assert look(QWEN3_32B, GIB, "cpu").least_memory > 120 * GIB


def test_a_tied_embedding_is_kept_twice_where_a_cpu_has_a_layout_of_its_own() -> None:
    args, table = LaunchArgs(model_path="m", dtype="bfloat16"), SMALL.vocab_size * SMALL.hidden_size * 2
    plain, packed = (weight_bytes(EngineConfig.resolve(args, SMALL, "cpu", has)) for has in ([], [AVX512]))
    assert packed - plain == table
    assert look(SMALL, None, "cpu", dtype="bfloat16").need.weights == packed, "the worse is supposed of a foreign CPU"
    assert look(SMALL, None, "cuda").need.weights == plain


def test_the_sentence_has_the_numbers() -> None:
    text = explain(look(QWEN3_32B, GPUS["l40s"] * 2**20))
    assert "Qwen3ForCausalLM needs " in text
    assert "per GPU (weights 61.0 GiB, activations" in text
    assert "KV cache of 256 tokens 64.0 MiB" in text
    assert "memoryRatio 0.9 of what is free of 45.0 GiB is 39.4 GiB" in text


@pytest.mark.parametrize(
    ("args", "error", "sentence"),
    [
        ({"tensor_parallel_size": 3}, StartError, "sizes that work: 1, 2, 4, 8"),
        ({"max_seq_len_override": 5000}, UsageError, "longer than the model's context"),
        ({"num_tokens": 8}, StartError, "less than one page"),
    ],
)
def test_arguments_that_cannot_work_with_the_model_are_refused(
    args: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        look(SMALL, None, **args)


MIXED = replace(QWEN3_32B, experts=ExpertsConfig(128, 8, 768, normalised=True, layers=frozenset(range(2, 64))))


@pytest.mark.parametrize("model", [SMALL, QWEN3_32B, MIXED])
@pytest.mark.parametrize("ranks", [1, 4])
def test_an_inspection_plans_as_the_model_itself_and_is_a_small_message(model: ModelConfig, ranks: int) -> None:
    text = Inspection.of(model).model_dump_json(by_alias=True, exclude_defaults=True)
    assert len(text) < 1000, "a termination message holds 4096 bytes"
    told = Inspection.model_validate_json(text).model()
    ours, theirs = (look(each, 80 * GIB, tensor_parallel_size=ranks) for each in (model, told))
    assert (ours.need, ours.tokens, ours.config.token_bytes) == (theirs.need, theirs.tokens, theirs.config.token_bytes)


@pytest.mark.parametrize(
    ("name", "mib"),
    [
        ("h200", 143_771),
        ("NVIDIA-H200", 143_771),
        ("NVIDIA-H100-80GB-HBM3", 81_559),
        ("NVIDIA-A100-SXM4-40GB", 40_960),
        ("A100-SXM4-80GB", 81_920),
        ("NVIDIA-L4-SHARED", 23_034),
        ("Tesla-T4", 15_360),
        ("NVIDIA-H100-PCIe", 81_559),
        ("NVIDIA-H200-141GB-HBM3e", 143_771),
        ("NVIDIA-H100-NVL", None),
        ("NVIDIA-H100-64GB-HBM2", None),
        ("NVIDIA-A10-8Q", None),
        ("NVIDIA-L40S-12C", None),
        ("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", None),
        ("NVIDIA-RTX-2000-Ada-Generation", None),
        ("", None),
    ],
)
def test_gpus_are_known_by_name_and_by_label(name: str, mib: int | None) -> None:
    assert gpu_bytes(name) == (None if mib is None else mib * 2**20)


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("80Gi", 80 * GIB),
        ("80GiB", 80 * GIB),
        ("24G", 24 * 10**9),
        ("1.5Gi", 3 * GIB // 2),
        (4096, 4096),
        ("1e9", 10**9),
    ],
)
def test_amounts_of_memory_are_read(text: str | int, num_bytes: float) -> None:
    assert read_quantity(text) == num_bytes


@pytest.mark.parametrize("text", ["much", "", "-1Gi", "80 apples", "0", "1.2.3Gi", "500m", "9e30", "1e999999999"])
def test_other_words_are_no_amount_of_memory(text: str) -> None:
    with pytest.raises(UsageError, match="write it as 80Gi"):
        read_quantity(text)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("ranks", [1, 4])
def test_memory_and_what_is_free_of_it_are_inverse(device: str, ranks: int) -> None:
    assert free_at_start(device, memory_for(device, 5 * GIB, ranks), ranks) == 5 * GIB
    assert free_at_start(device, 1, ranks) == 0


@pytest.mark.parametrize(("num", "text"), [(0, "0"), (2048, "2.0 KiB"), (3 * 2**29, "1.5 GiB"), (200 * GIB, "200 GiB")])
def test_sizes_read_well(num: int, text: str) -> None:
    assert size(num) == text


@pytest.mark.parametrize("size", [0, -1, 10**12])
@pytest.mark.parametrize("field", ["numLayers", "numHeads", "vocabSize", "contextLength"])
def test_an_inspection_cannot_keep_its_reader_busy(field: str, size: int) -> None:
    """Who makes a model may write this message; the operator counts layers and heads."""
    told = Inspection.of(SMALL).model_dump(by_alias=True) | {field: size}
    with pytest.raises(ValidationError, match=field):
        Inspection.model_validate(told)
