"""Which of FlashInfer's modules an engine asks for, and which an image carries: pure, the package is not needed."""

import pytest

from minisgl.attention import modules
from minisgl.attention.modules import HEAD_DIMS, NARROW, Module

HOPPER, AMPERE = 9, 8
# Of the served families: query heads, KV heads, head dim.
MODELS = {
    "Llama-3.2-1B": (32, 8, 64),
    "Llama-3.2-3B": (24, 8, 128),
    "Llama-3.1-8B": (32, 8, 128),
    "Llama-3.1-70B": (64, 8, 128),
    "Llama-2-7B": (32, 32, 128),
    "Mistral-7B": (32, 8, 128),
    "Qwen2.5-0.5B": (14, 2, 64),
    "Qwen2.5-1.5B": (12, 2, 128),
    "Qwen2.5-7B": (28, 4, 128),
    "Qwen2.5-14B": (40, 8, 128),
    "Qwen3-0.6B": (16, 8, 128),
    "Qwen3-30B-A3B": (32, 4, 128),
    "Qwen3-235B-A22B": (64, 4, 128),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("narrow", [False, True], ids=["plain", "fp8"])
def test_an_image_carries_all_that_a_served_model_asks_for(model: str, dtype: str, narrow: bool) -> None:
    head_dim = MODELS[model][-1]
    carried = modules.carried(["9.0a"])
    assert set(modules.asked(dtype, NARROW if narrow else dtype, head_dim, HOPPER)) <= set(carried)


@pytest.mark.parametrize(
    "model", ["Llama-3.1-8B", "Llama-3.1-70B", "Mistral-7B", "Qwen2.5-7B", "Qwen2.5-14B", "Qwen3-0.6B"]
)
@pytest.mark.parametrize("page_size", [16, 64])
def test_xqa_is_carried_for_the_models_that_most_are_served(model: str, page_size: int) -> None:
    heads, kv_heads, head_dim = MODELS[model]
    assert modules.xqa("bfloat16", head_dim, heads // kv_heads, page_size, HOPPER) in modules.carried(["9.0a"])


def test_hopper_has_kernels_of_its_own_for_prompts_but_not_over_a_narrow_cache() -> None:
    two = [Module("fa2", "bfloat16", "bfloat16", 128), Module("fa3", "bfloat16", "bfloat16", 128)]
    assert modules.asked("bfloat16", "bfloat16", 128, HOPPER) == two
    assert modules.asked("bfloat16", "bfloat16", 128, AMPERE) == two[:1]
    assert modules.asked("bfloat16", "bfloat16", 96, HOPPER) == [Module("fa2", "bfloat16", "bfloat16", 96)]
    assert modules.asked("bfloat16", NARROW, 128, HOPPER) == [Module("fa2", "bfloat16", NARROW, 128)]


@pytest.mark.parametrize(
    ("dtype", "head_dim", "page_size", "generation"),
    [
        ("float16", 128, 16, HOPPER),
        ("bfloat16", 64, 16, HOPPER),
        ("bfloat16", 128, 8, HOPPER),
        ("bfloat16", 128, 16, 8),
    ],
)
def test_xqa_is_for_some_shapes(dtype: str, head_dim: int, page_size: int, generation: int) -> None:
    assert modules.xqa("bfloat16", 128, 4, 16, HOPPER) is not None
    assert modules.xqa(dtype, head_dim, 4, page_size, generation) is None


def test_an_image_for_older_gpus_carries_less_and_one_for_both_nothing_twice() -> None:
    older, both = modules.carried(["8.0"]), modules.carried(["8.0", "8.9", "9.0a"])
    assert {module.kernel for module in older} == {"fa2"}
    assert len(older) == 2 * len(HEAD_DIMS) * len(modules.DTYPES)
    assert len(both) == len(set(both))
    assert set(both) == set(modules.carried(["9.0a"]))


def test_of_the_kernels_for_prompts_those_are_compiled_that_are_called() -> None:
    kinds = [f"batch_prefill_{keys}{sm}_kernel_mask" for keys in ("paged", "ragged") for sm in ("", "_sm90")]
    names = [f"{kind}_{mask}.cu" for kind in kinds for mask in range(4)]
    kept = [name for name in [*names, "batch_prefill.cu", "mha.cu"] if not modules.is_never_called(name)]
    paged = [f"batch_prefill_paged{kind}.cu" for kind in ("_kernel_mask_0", "_kernel_mask_1", "_sm90_kernel_mask_1")]
    assert kept == [*paged, "batch_prefill.cu", "mha.cu"]
