"""Every "auto" decided without a GPU, and the refusals."""

from typing import Any

import pytest

from minisgl.args import LaunchArgs
from minisgl.errors import StartError, UsageError
from minisgl.plan.config import GRAPH_BYTES, EngineConfig
from minisgl.plan.memory import Need, need, size_cache
from minisgl.termination import Reason
from support.shapes import SMALL


def resolve(device: str = "cpu", **args: Any) -> EngineConfig:
    return EngineConfig.resolve(LaunchArgs(model_path="m", **args), SMALL, device)


@pytest.mark.parametrize(
    ("device", "dtype", "expected"),
    [
        ("cpu", "auto", "float32"),
        ("cpu", "bfloat16", "bfloat16"),
        ("cuda", "auto", "bfloat16"),
        ("cuda", "float16", "float16"),
    ],
)
def test_the_number_format_follows_the_device(device: str, dtype: str, expected: str) -> None:
    assert resolve(device, dtype=dtype).dtype == expected


def test_defaults_are_decided() -> None:
    config = resolve()
    assert (config.attention_backend, config.context_length, config.max_step_tokens) == ("torch", 1024, 512)
    assert resolve(max_seq_len_override=100, max_prefill_length=64).context_length == 100
    assert resolve("cuda").max_step_tokens == 4096


@pytest.mark.parametrize("backend", ["auto", "torch", "torch,auto"])
def test_the_torch_backend_is_chosen(backend: str) -> None:
    assert resolve(attention_backend=backend).attention_backend == "torch"


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ({"dtype": "float16"}, "--dtype float16 on a CPU.*use float32 or bfloat16"),
        ({"attention_backend": "fa3,fi"}, "fa3,fi: fa needs an NVIDIA GPU and the package flash-attn.*use.*torch"),
        ({"max_seq_len_override": 2000}, "--max-seq-len-override 2000 is longer than the model's context of 1024"),
    ],
)
def test_what_cannot_work_is_refused_by_its_flag(args: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        resolve(**args)


def test_a_cache_in_fp8_holds_twice_as_many_tokens_of_16_bits() -> None:
    args = {"model_path": "m", "dtype": "bfloat16"}
    wide, narrow = (
        EngineConfig.resolve(LaunchArgs(**args, kv_cache_dtype=kind), SMALL, "cuda") for kind in ("auto", "fp8")
    )
    assert (wide.cache_dtype, narrow.cache_dtype) == ("bfloat16", "float8_e4m3fn")
    assert wide.page_bytes == 2 * narrow.page_bytes
    assert wide.working_bytes == narrow.working_bytes, "activations stay as they are"


def test_the_native_backend_reads_no_fp8() -> None:
    with_compiler = {"model": SMALL, "device": "cpu", "installed": ["cc"]}
    chosen = EngineConfig.resolve(LaunchArgs(model_path="m", kv_cache_dtype="fp8"), **with_compiler)
    assert chosen.attention_backend == "torch"
    asked = LaunchArgs(model_path="m", kv_cache_dtype="fp8", attention_backend="native")
    with pytest.raises(UsageError, match=r"native reads a KV cache in the model's own format only; use .*torch"):
        EngineConfig.resolve(asked, **with_compiler)


def test_ranks_that_do_not_divide_the_heads_are_refused() -> None:
    with pytest.raises(StartError, match="sizes that work: 1, 2, 4, 8"):
        resolve(tensor_parallel_size=3)


def test_a_page_costs_keys_and_values_of_all_layers() -> None:
    assert resolve().page_bytes == 2 * 2 * 4 * 8 * 4 * 16
    assert resolve(tensor_parallel_size=8).page_bytes == resolve().page_bytes // 4, "one KV head stays on each rank"


WEIGHTS = 10 * 2**20


def taken(config: EngineConfig) -> Need:
    return need(config, weights=WEIGHTS)


def free_for(pages: int, config: EngineConfig) -> int:
    """Free memory of which exactly `pages` are left for the cache."""
    return int((taken(config).total + pages * config.page_bytes + config.page_bytes // 2) / config.memory_ratio)


@pytest.mark.parametrize(
    ("args", "affordable", "pages", "limited_by"),
    [
        ({}, 100, 100, "memoryRatio"),
        ({"num_pages": 50}, 100, 50, "numPages"),
        ({"num_pages": 500}, 100, 100, "memoryRatio"),
        ({"num_tokens": 330}, 100, 20, "numTokens"),
        ({"max_running_requests": 2}, 100_000, 128, "memoryRatio"),
    ],
)
def test_the_cache_is_as_large_as_its_tightest_limit(
    args: dict[str, Any], affordable: int, pages: int, limited_by: str
) -> None:
    config = resolve(**args)
    assert size_cache(config, free_for(affordable, config), taken(config)) == (pages, limited_by)


def test_what_a_trial_found_comes_off_the_cache() -> None:
    config = resolve()
    more = config.working_bytes + 7 * config.page_bytes
    assert size_cache(config, free_for(100, config), need(config, WEIGHTS, more)).pages == 93


def test_graphs_take_memory_only_where_they_are() -> None:
    assert resolve().graph_bytes == 0
    on_gpu = EngineConfig.resolve(LaunchArgs(model_path="m"), SMALL, "cuda", ["flashinfer-python"])
    small = EngineConfig.resolve(LaunchArgs(model_path="m", cuda_graph_max_bs=8), SMALL, "cuda", ["flashinfer-python"])
    assert on_gpu.graph_bytes > small.graph_bytes > 0


def test_a_cache_too_small_to_be_useful_is_refused_with_numbers() -> None:
    config = resolve()
    with pytest.raises(StartError, match=r"--memory-ratio 0.9 of \d+ MiB.*weights take 10 MiB.*--num-pages") as caught:
        size_cache(config, free_for(10, config), taken(config))
    assert caught.value.reason is Reason.OUT_OF_MEMORY


def test_fewer_tokens_than_a_page_are_refused() -> None:
    with pytest.raises(StartError, match="--num-tokens 4 is less than one page of 16 tokens"):
        size_cache(resolve(num_tokens=4), 2**33, taken(resolve()))


@pytest.mark.parametrize(("wanted", "device", "overlaps"), [("auto", "cpu", False), ("on", "cpu", True)])
def test_a_cpu_overlaps_only_when_asked(wanted: str, device: str, overlaps: bool) -> None:
    assert resolve(overlap=wanted).overlap == overlaps


@pytest.mark.parametrize(
    ("args", "installed", "decided"),
    [
        ({}, ["flashinfer-python"], ("fi", 256)),
        ({}, [], ("torch", 0)),
        ({"dtype": "float32"}, ["flashinfer-python"], ("torch", 0)),
        ({"attention_backend": "torch,fi"}, ["flashinfer-python"], ("torch,fi", 256)),
        ({"attention_backend": "fi,torch"}, ["flashinfer-python"], ("fi,torch", 0)),
        ({"attention_backend": "fi,fi", "cuda_graph_max_bs": 8}, ["flashinfer-python"], ("fi", 8)),
        ({"cuda_graph_max_bs": 0}, ["flashinfer-python"], ("fi", 0)),
        ({"max_running_requests": 5}, ["flashinfer-python"], ("fi", 5)),
        ({}, ["flashinfer-python", "flash-attn-4", "sm90"], ("fa,fi", 256)),
        ({}, ["flashinfer-python", "flash-attn-4", "sm100"], ("fa,fi", 256)),
        ({}, ["flashinfer-python", "flash-attn", "sm80"], ("fi", 256)),
        ({}, ["flash-attn-4", "sm90"], ("torch", 0)),
        ({"kv_cache_dtype": "fp8"}, ["flashinfer-python", "flash-attn-4", "sm90"], ("fi", 256)),
        ({"attention_backend": "auto,auto"}, ["flashinfer-python", "flash-attn-4", "sm90"], ("fa,fi", 256)),
        ({"attention_backend": "fa3"}, ["flash-attn-3", "sm90"], ("fa", 256)),
        ({"attention_backend": "fi,fa"}, ["flashinfer-python", "flash-attn-4", "sm90"], ("fi,fa", 256)),
        ({"attention_backend": "fa,torch"}, ["flash-attn-4", "sm90"], ("fa,torch", 0)),
    ],
)
def test_what_a_gpu_gets(args: dict[str, Any], installed: list[str], decided: tuple[str, int]) -> None:
    config = EngineConfig.resolve(LaunchArgs(model_path="m", **args), SMALL, "cuda", installed)
    assert (config.attention_backend, config.graph_max_batch) == decided
    assert config.graph_max_tokens == (4096 if "torch" not in decided[0] and decided[1] else 0)
    assert config.overlap


@pytest.mark.parametrize(
    ("args", "installed", "sentence"),
    [
        ({"attention_backend": "fi"}, [], "flashinfer-python is not installed; pip install minisgl"),
        ({"attention_backend": "fa,fi"}, ["flashinfer-python"], "flash-attn-4 is not installed; pip install minisgl"),
        (
            {"attention_backend": "fa,fi", "kv_cache_dtype": "fp8"},
            ["flashinfer-python", "flash-attn-4"],
            "fa reads a KV cache in the model's own format only; use --attention-backend fi",
        ),
        ({"attention_backend": "fi", "dtype": "float32"}, ["flashinfer-python"], "16 bits only; use --dtype bfloat16"),
    ],
)
def test_a_gpu_without_what_it_needs(args: dict[str, Any], installed: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        EngineConfig.resolve(LaunchArgs(model_path="m", **args), SMALL, "cuda", installed)


def test_steps_that_are_split_whatever_their_size_keep_more_room() -> None:
    found = []
    for gpu, cache in (("sm90", "auto"), ("sm80", "auto"), ("sm90", "fp8")):
        args = LaunchArgs.model_validate({"model_path": "m", "kv_cache_dtype": cache})
        found.append(EngineConfig.resolve(args, SMALL, "cuda", ["flashinfer-python", gpu]))
    hopper, ampere, narrow = found
    assert hopper.graph_shapes == ampere.graph_shapes
    # XQA cuts a long past by itself: no decode shape is there twice.
    assert narrow.graph_shapes == [s for s in hopper.graph_shapes if not (s.is_decode and s.is_shared)]
    twice = [shape for shape in hopper.graph_shapes if shape.is_decode and shape.is_shared]
    logits = sum(shape.requests for shape in twice) * SMALL.vocab_size * 2
    assert hopper.graph_bytes < ampere.graph_bytes == narrow.graph_bytes + logits + len(twice) * GRAPH_BYTES
