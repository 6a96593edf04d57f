"""What the offline benchmark asks, token by token, and the time that no engine can be faster than."""

import random
from types import SimpleNamespace
from typing import Any

import pytest

from minisgl.bench.roofline import Device, measure_device, roofline
from minisgl.bench.workload import Workload, comparison, equal_prompts


def test_the_workload_is_the_one_that_others_compute() -> None:
    # nano-vllm's and mini-sglang's benchmarks draw so: seed(0), then lengths and tokens with randint in this order.
    workload = comparison(256, 1024, 1024, 151_936)
    assert (workload.num_input_tokens, workload.num_output_tokens) == (142_827, 133_966)
    random.seed(0)
    drawn = [[random.randint(0, 10_000) for _ in range(random.randint(100, 1024))] for _ in range(256)]
    assert workload.prompts == drawn
    assert workload.output_lens == [random.randint(100, 1024) for _ in range(256)]


def test_small_numbers_and_small_vocabularies_are_possible() -> None:
    workload = comparison(5, 8, 3, 97)
    assert {len(prompt) for prompt in workload.prompts} == {8}
    assert set(workload.output_lens) == {3}
    assert max(map(max, workload.prompts)) < 97


def test_no_round_finds_anothers_prefix() -> None:
    workload = comparison(20, 30, 5, 500)
    first, second = workload.of_round(0, 500), workload.of_round(1, 500)
    assert first == workload.prompts
    assert [len(prompt) for prompt in second] == [len(prompt) for prompt in first]
    assert all(a != b for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))
    assert equal_prompts(2, 9, 97, 1) != equal_prompts(2, 9, 97, 2)


def a_model(**changes: Any) -> Any:
    shape = {"num_layers": 1, "hidden_size": 4, "num_heads": 2, "num_kv_heads": 1, "head_dim": 2}
    return SimpleNamespace(**(shape | {"intermediate_size": 8, "vocab_size": 10} | changes))


def test_the_roofline_counts_what_must_be_read_and_computed() -> None:
    # One prompt of 3 tokens, 2 new ones. Weights: q, o 16 each; k, v 8 each; three of 32 in the MLP; head 40.
    linear, head = 16 + 16 + 8 + 8 + 96, 40
    slow_memory = roofline(a_model(), 4, Workload([[1, 2, 3]], [2]), Device(1.0, 1e30))
    assert slow_memory.decode_seconds == (linear + head) * 4  # the second token; the first is the prefill's
    assert slow_memory.kv_seconds == (2 * 3 + 3) * 2 * 2 * 4
    slow_arithmetic = roofline(a_model(), 4, Workload([[1, 2, 3]], [2]), Device(1e30, 1.0))
    assert slow_arithmetic.prefill_seconds == 2 * linear * 3 + 2 * 4 * 9
    assert slow_arithmetic.decode_seconds == 2 * (linear + head)
    assert slow_arithmetic.output_tokens_per_second == pytest.approx(2 / slow_arithmetic.seconds)


@pytest.mark.cpu
def test_a_device_is_measured() -> None:
    device = measure_device("cpu", "float32")
    assert 1e8 < device.bytes_per_second < 1e13
    assert 1e8 < device.flops_per_second < 1e15
