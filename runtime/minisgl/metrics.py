"""Every metric of a server, declared once; dashboards and alerts are checked against this list.

Base units, no label from a user's text, all label sets there from the start. Only the front end makes a registry.
With `--metrics-compat vllm` what a declaration calls `vllm` is shown under that name too: the same series, renamed
while they are read, so nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from minisgl.messages import Finish, Stats

# Fine where a person or a rule looks: first tokens of 10 ms to seconds, decode steps of 2 to 100 ms.
FIRST_TOKEN = (0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640)
BETWEEN_TOKENS = (0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 5)
WHOLE_REQUEST = (0.1, 0.3, 0.5, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)

FINISH_REASONS = {Finish.STOP: "stop", Finish.LENGTH: "length", Finish.ABORT: "abort", Finish.ERROR: "error"}


@dataclass(frozen=True)
class Metric:
    """One declaration. Every series also carries `model_name`, the served name.

    `vllm`: the name, without its prefix, under which vLLM shows the same thing.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    vllm: str = ""


# Our label -> vLLM's. `engine` numbers the engines behind one vLLM server; dashboards sum over it.
VLLM_LABELS = {"finish_reason": "finished_reason", "page_size": "block_size", "pages": "num_gpu_blocks"}
VLLM_ENGINE = {"engine": "0"}

DECLARED = {
    metric.name: metric
    for metric in (
        Metric(
            "minisgl_requests_running",
            "gauge",
            "Requests that the scheduler computes now.",
            vllm="num_requests_running",
        ),
        Metric(
            "minisgl_requests_waiting", "gauge", "Requests that wait in the scheduler.", vllm="num_requests_waiting"
        ),
        Metric(
            "minisgl_requests_total",
            "counter",
            "Generations that ended, by reason.",
            ("finish_reason",),
            vllm="request_success_total",
        ),
        Metric("minisgl_http_responses_total", "counter", "HTTP responses by route.", ("endpoint", "status")),
        Metric(
            "minisgl_prompt_tokens_total",
            "counter",
            "Prompt tokens of requests that began to answer.",
            vllm="prompt_tokens_total",
        ),
        Metric(
            "minisgl_cached_prompt_tokens_total",
            "counter",
            "Of these, tokens found in the prefix cache.",
            vllm="prompt_tokens_cached_total",
        ),
        Metric("minisgl_generation_tokens_total", "counter", "Generated tokens.", vllm="generation_tokens_total"),
        Metric(
            "minisgl_time_to_first_token_seconds",
            "histogram",
            "From a request's arrival to its first token.",
            buckets=FIRST_TOKEN,
            vllm="time_to_first_token_seconds",
        ),
        Metric(
            "minisgl_inter_token_latency_seconds",
            "histogram",
            "Between two tokens of one request.",
            buckets=BETWEEN_TOKENS,
            vllm="inter_token_latency_seconds",
        ),
        Metric(
            "minisgl_time_per_output_token_seconds",
            "histogram",
            "A request's mean time between two tokens; of requests with two or more.",
            buckets=BETWEEN_TOKENS,
            vllm="request_time_per_output_token_seconds",
        ),
        Metric(
            "minisgl_request_duration_seconds",
            "histogram",
            "From a request's arrival to its last token.",
            buckets=WHOLE_REQUEST,
            vllm="e2e_request_latency_seconds",
        ),
        Metric(
            "minisgl_request_prompt_tokens",
            "histogram",
            "Prompt tokens of a request that ended.",
            buckets=TOKENS,
            vllm="request_prompt_tokens",
        ),
        Metric(
            "minisgl_request_generation_tokens",
            "histogram",
            "Generated tokens of a request that ended.",
            buckets=TOKENS,
            vllm="request_generation_tokens",
        ),
        Metric(
            "minisgl_request_max_tokens",
            "histogram",
            "Tokens that a request that ended was allowed to generate.",
            buckets=TOKENS,
            vllm="request_max_num_generation_tokens",
        ),
        Metric(
            "minisgl_kv_cache_usage_ratio",
            "gauge",
            "Share of the KV cache held by running requests, 0 to 1.",
            vllm="kv_cache_usage_perc",
        ),
        Metric("minisgl_kv_cache_used_tokens", "gauge", "Tokens of running requests in the KV cache."),
        Metric("minisgl_kv_cache_prefix_tokens", "gauge", "Tokens that the prefix cache holds, free on demand."),
        Metric("minisgl_kv_cache_tokens", "gauge", "Tokens that the KV cache can hold."),
        Metric(
            "minisgl_kv_cache_info",
            "gauge",
            "Always 1; its size in pages is in labels once the engine has made it.",
            ("page_size", "pages"),
            vllm="cache_config_info",
        ),
        Metric(
            "minisgl_prefix_cache_queries_total",
            "counter",
            "Prompt tokens looked up in the prefix cache.",
            vllm="prefix_cache_queries_total",
        ),
        Metric(
            "minisgl_prefix_cache_hits_total",
            "counter",
            "Prompt tokens found in the prefix cache.",
            vllm="prefix_cache_hits_total",
        ),
        Metric("minisgl_scheduler_steps_total", "counter", "Forward steps of the engine."),
        Metric(
            "minisgl_preemptions_total",
            "counter",
            "Running requests sent back to the queue for lack of cache.",
            vllm="num_preemptions_total",
        ),
        Metric("minisgl_process_up", "gauge", "1 while the process's heartbeat is fresh.", ("process",)),
        Metric("minisgl_dropped_messages_total", "counter", "Internal messages that made no sense.", ("process",)),
        Metric("minisgl_startup_seconds", "gauge", "From process start to the end of a start phase.", ("phase",)),
        Metric("minisgl_weights_bytes", "gauge", "Weights of this rank; 0 until it begins to load.", ("process",)),
        Metric("minisgl_weights_loaded_bytes", "gauge", "Of these, bytes already loaded.", ("process",)),
        Metric("minisgl_weights_eta_seconds", "gauge", "To the end of loading, by its pace so far.", ("process",)),
        Metric("minisgl_build_info", "gauge", "Always 1; the version is a label.", ("version",)),
    )
}

# Stats' totals count since the scheduler's start; the scheduler never restarts alone, so the difference is the growth.
TOTALS = {
    "minisgl_scheduler_steps_total": "steps_total",
    "minisgl_prefix_cache_queries_total": "prefix_query_tokens_total",
    "minisgl_prefix_cache_hits_total": "prefix_hit_tokens_total",
    "minisgl_preemptions_total": "preemptions_total",
}
GAUGES = {
    "minisgl_requests_running": "running",
    "minisgl_requests_waiting": "waiting",
    "minisgl_kv_cache_used_tokens": "kv_used_tokens",
    "minisgl_kv_cache_prefix_tokens": "kv_cached_tokens",
    "minisgl_kv_cache_tokens": "kv_total_tokens",
}


class Metrics:
    """The one registry of a server."""

    def __init__(self, model_name: str, compat: Literal["vllm", "none"] = "none") -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series beside each counter, that nobody reads
        self.registry = CollectorRegistry()
        self._model_name = model_name
        self._families = {metric.name: self._make(metric) for metric in DECLARED.values()}
        if compat == "vllm":
            self.registry.register(VllmNames(self._families))
        self._stats = Stats()
        self.ends = {reason: self.counter("minisgl_requests_total", name) for reason, name in FINISH_REASONS.items()}
        self.prompt_tokens = self.counter("minisgl_prompt_tokens_total")
        self.cached_tokens = self.counter("minisgl_cached_prompt_tokens_total")
        self.generation_tokens = self.counter("minisgl_generation_tokens_total")
        self.first_token = self.histogram("minisgl_time_to_first_token_seconds")
        self.between_tokens = self.histogram("minisgl_inter_token_latency_seconds")
        self.per_token = self.histogram("minisgl_time_per_output_token_seconds")
        self.duration = self.histogram("minisgl_request_duration_seconds")
        self.prompt_sizes = self.histogram("minisgl_request_prompt_tokens")
        self.answer_sizes = self.histogram("minisgl_request_generation_tokens")
        self.answer_limits = self.histogram("minisgl_request_max_tokens")
        self._kv_usage = self.gauge("minisgl_kv_cache_usage_ratio")
        self._totals = [(self.counter(name), field) for name, field in TOTALS.items()]
        self._gauges = [(self.gauge(name), field) for name, field in GAUGES.items()]

    def counter(self, name: str, *labels: str) -> Counter:
        series = self._families[name].labels(self._model_name, *labels)
        assert isinstance(series, Counter)
        return series

    def gauge(self, name: str, *labels: str) -> Gauge:
        series = self._families[name].labels(self._model_name, *labels)
        assert isinstance(series, Gauge)
        return series

    def histogram(self, name: str) -> Histogram:
        series = self._families[name].labels(self._model_name)
        assert isinstance(series, Histogram)
        return series

    def take(self, stats: Stats) -> None:
        """The scheduler's latest figures."""
        for series, field in self._gauges:
            series.set(getattr(stats, field))
        self._kv_usage.set(stats.kv_used_tokens / stats.kv_total_tokens if stats.kv_total_tokens else 0)
        for counter, field in self._totals:
            counter.inc(max(0, getattr(stats, field) - getattr(self._stats, field)))
        self._stats = stats

    def take_load(self, process: str, done: int | None, total: int | None, eta_seconds: float | None) -> None:
        """How far a rank's weights are."""
        self.gauge("minisgl_weights_loaded_bytes", process).set(done or 0)
        self.gauge("minisgl_weights_bytes", process).set(total or 0)
        self.gauge("minisgl_weights_eta_seconds", process).set(eta_seconds or 0)

    def _make(self, metric: Metric) -> MetricWrapperBase:
        labels = ("model_name", *metric.labels)
        if metric.kind == "histogram":
            return Histogram(metric.name, metric.help, labels, buckets=metric.buckets, registry=self.registry)
        kind = Counter if metric.kind == "counter" else Gauge
        return kind(metric.name, metric.help, labels, registry=self.registry)


class VllmNames(Collector):
    """The series that vLLM has too, under its names."""

    def __init__(self, families: Mapping[str, MetricWrapperBase]) -> None:
        self._families = [(metric, families[metric.name]) for metric in DECLARED.values() if metric.vllm]

    def collect(self) -> Iterable[Family]:
        for metric, family in self._families:
            for ours in family.collect():
                theirs = Family(f"vllm:{metric.vllm.removesuffix('_total')}", metric.help, metric.kind)
                for sample in ours.samples:
                    labels = {VLLM_LABELS.get(name, name): value for name, value in sample.labels.items()}
                    name = theirs.name + sample.name.removeprefix(ours.name)
                    theirs.add_sample(name, labels | VLLM_ENGINE, sample.value)
                yield theirs
