"""The declarations keep Prometheus' rules, and the scheduler's totals become counters."""

import re

import pytest

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
        assert metric.name.endswith("_seconds")


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
