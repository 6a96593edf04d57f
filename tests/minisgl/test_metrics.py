"""The declarations keep Prometheus' rules, and the scheduler's totals become counters."""

import re
from typing import Literal

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from minisgl.messages import Finish, Stats
from minisgl.metrics import DECLARED, FINISH_REASONS, GAUGES, TOTALS, Metric, Metrics


@pytest.mark.parametrize("metric", DECLARED.values(), ids=lambda metric: metric.name)
def test_a_name_says_its_kind_and_unit(metric: Metric) -> None:
    assert re.fullmatch(r"minisgl_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert (metric.kind == "histogram") == bool(metric.buckets)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert metric.help.endswith(".")
    if metric.kind == "histogram":
        assert metric.name.endswith(("_seconds", "_tokens"))


def test_figures_of_the_scheduler_are_shown() -> None:
    metrics = Metrics("tiny")
    metrics.take(Stats(running=2, kv_used_tokens=25, kv_total_tokens=100, steps_total=5))
    metrics.take(Stats(running=1, kv_used_tokens=50, kv_total_tokens=100, steps_total=7))

    def value(name: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"model_name": "tiny"})

    assert value("minisgl_requests_running") == 1
    assert value("minisgl_kv_cache_usage_ratio") == 0.5
    assert value("minisgl_scheduler_steps_total") == 7


def test_what_the_scheduler_reports_is_declared() -> None:
    assert {*TOTALS, *GAUGES} <= set(DECLARED)
    assert {*TOTALS.values(), *GAUGES.values()} == set(Stats.__struct_fields__)
    assert set(FINISH_REASONS) == set(Finish) - {Finish.RUNNING}


def test_every_ending_is_counted_from_the_start() -> None:
    registry = Metrics("tiny").registry
    for reason in FINISH_REASONS.values():
        labels = {"model_name": "tiny", "finish_reason": reason}
        assert registry.get_sample_value("minisgl_requests_total", labels) == 0


VLLM = {  # what gateways (EPP), KEDA recipes and vLLM's dashboard ask for
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:cache_config_info",
    "vllm:prefix_cache_queries",
    "vllm:prefix_cache_hits",
    "vllm:prompt_tokens",
    "vllm:prompt_tokens_cached",
    "vllm:generation_tokens",
    "vllm:request_success",
    "vllm:num_preemptions",
    "vllm:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:request_time_per_output_token_seconds",
    "vllm:e2e_request_latency_seconds",
    "vllm:request_prompt_tokens",
    "vllm:request_generation_tokens",
    "vllm:request_max_num_generation_tokens",
}


def test_the_names_of_vllm_are_shown_if_asked_for() -> None:
    def names(compat: Literal["vllm", "none"]) -> set[str]:
        families = text_string_to_metric_families(generate_latest(Metrics("tiny", compat).registry).decode())
        return {family.name for family in families}

    assert names("vllm") - names("none") == VLLM


def test_what_vllm_calls_by_another_name_has_the_same_value_and_that_labels() -> None:
    metrics = Metrics("tiny", "vllm")
    metrics.gauge("minisgl_kv_cache_info", "16", "256").set(1)
    metrics.take(Stats(running=2, kv_used_tokens=25, kv_total_tokens=100, preemptions_total=3))
    metrics.ends[Finish.LENGTH].inc(4)
    metrics.first_token.observe(0.03)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"vllm:{name}", {"model_name": "tiny", "engine": "0", **labels})

    assert value("num_requests_running") == 2
    assert value("kv_cache_usage_perc") == 0.25
    assert value("num_preemptions_total") == 3
    assert value("cache_config_info", block_size="16", num_gpu_blocks="256") == 1
    assert value("request_success_total", finished_reason="length") == 4
    assert value("request_success_total", finished_reason="stop") == 0
    assert value("time_to_first_token_seconds_count") == 1
    assert value("time_to_first_token_seconds_bucket", le="0.02") == 0
    assert value("time_to_first_token_seconds_bucket", le="0.04") == 1
