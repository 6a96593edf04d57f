"""The operator's own metrics. Names are declared here once; alerts and dashboards are checked against them."""

from __future__ import annotations

import platform

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from minisgl import __version__

# A quiet reconcile is seven reads, mostly at once (about 20 ms); one that creates children takes about 100 ms; the last
# bucket is a time-out.
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)
# A tiny model on a CPU takes seconds; 700 GB from the hub take hours.
COLD_START_BUCKETS = (1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1200, 3600, 10800)


class Metrics:
    """One registry per process, handed to whoever counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconcile = Counter(
            "minisgl_operator_reconcile", "Reconciles by result (ok, error).", ["result"], registry=self.registry
        )
        self.reconcile_seconds = Histogram(
            "minisgl_operator_reconcile_seconds", "Duration of one reconcile.", buckets=BUCKETS, registry=self.registry
        )
        self.cold_start_seconds = Histogram(
            "minisgl_operator_cold_start_seconds",
            "Seconds from a pod's creation to its first answer (phase: whole), and of each phase on the way.",
            ["phase"],
            buckets=COLD_START_BUCKETS,
            registry=self.registry,
        )
        self.models = Gauge(
            "minisgl_operator_models",
            "Models by the condition that is true (Ready, Reconciling, Stalled). Told by operators that wait, too.",
            ["condition"],
            registry=self.registry,
        )
        self.last_resync = Gauge(
            "minisgl_operator_last_resync_timestamp_seconds",
            "When all models were last listed.",
            registry=self.registry,
        )
        self.api_errors = Counter(
            "minisgl_operator_api_errors",
            "Failed calls to the Kubernetes API by call and HTTP code (0: no answer).",
            ["call", "code"],
            registry=self.registry,
        )
        self.watch_restarts = Counter(
            "minisgl_operator_watch_restarts", "Times the watches ended and were started anew.", registry=self.registry
        )
        self.queue_length = Gauge(
            "minisgl_operator_queue_length", "Models that wait for their turn.", registry=self.registry
        )
        self.is_holder = Gauge(
            "minisgl_operator_is_holder",
            "1 while this operator holds the Lease and acts, 0 while it waits.",
            registry=self.registry,
        )
        build = Gauge(
            "minisgl_operator_build_info", "Version of the operator.", ["version", "python"], registry=self.registry
        )
        build.labels(__version__, platform.python_version()).set(1)
