"""Every metric of the gateway: name, unit and help in one table, plain counters behind it.

Requests add to plain numbers here and prometheus_client turns them into text when it is asked: its own counters lock
and look labels up, which would cost more than the rest of a request's bookkeeping.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

Labels = tuple[str, ...]
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0)

# Name → kind, labels, help. Counters get _total; units are in the names, as Prometheus asks.
TABLE: dict[str, tuple[str, Labels, str]] = {
    "launcher_requests": (
        "counter",
        ("route", "code"),
        "Requests that ended, by route and HTTP status (499: client left).",
    ),
    "launcher_refusals": ("counter", ("reason",), "Requests that the gateway refused itself, by reason code."),
    "launcher_client_disconnects": ("counter", (), "Requests whose client left before the answer was complete."),
    "launcher_client_stalls": (
        "counter",
        (),
        "Clients cut off because they read nothing for gateway.write_timeout.",
    ),
    "launcher_engine_failures": (
        "counter",
        ("replica", "stage"),
        "Engine connections that failed: connect, head or body.",
    ),
    "launcher_retries": (
        "counter",
        ("reason",),
        "Requests sent again: stale (reused connection) or failover (replica).",
    ),
    "launcher_received_bytes": ("counter", (), "Bytes of request bodies received from clients."),
    "launcher_sent_bytes": ("counter", (), "Bytes of engine answers sent to clients."),
    "launcher_request_duration_seconds": (
        "histogram",
        ("route",),
        "From the whole request received to its answer's end.",
    ),
    "launcher_engine_first_byte_seconds": (
        "histogram",
        ("replica",),
        "From sending to an engine to its answer's head.",
    ),
    "launcher_queue_wait_seconds": (
        "histogram",
        (),
        "Time in the queue, of requests that had to wait and were started.",
    ),
    "launcher_in_flight": ("gauge", ("replica",), "Requests that hold a slot of a replica."),
    "launcher_replica_ready": ("gauge", ("replica",), "1: the replica gets requests."),
    "launcher_queued": ("gauge", (), "Requests that wait for a slot."),
    "launcher_connections": ("gauge", (), "Open client connections."),
    "launcher_draining": ("gauge", (), "1: no new requests are admitted."),
    "launcher_build_info": ("gauge", ("version",), "Always 1; the label tells the version."),
}
Gauges = Callable[[], Iterable[tuple[str, Labels, float]]]


class Histogram:
    """Counts by bucket, and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus wants them."""
        running, out = 0, []
        for bound, count in zip((*map(str, SECONDS), "+Inf"), self.counts, strict=True):
            running += count
            out.append((bound, float(running)))
        return out


class Metrics:
    """The gateway's numbers. Written by the gateway's event loop only."""

    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges
        self.requests: defaultdict[tuple[str, int], int] = defaultdict(int)
        self.refusals: defaultdict[str, int] = defaultdict(int)
        self.engine_failures: defaultdict[tuple[int, str], int] = defaultdict(int)
        self.retries: defaultdict[str, int] = defaultdict(int)
        self.client_disconnects = 0
        self.client_stalls = 0
        self.received_bytes = 0
        self.sent_bytes = 0
        self.durations: defaultdict[str, Histogram] = defaultdict(Histogram)
        self.first_bytes: defaultdict[int, Histogram] = defaultdict(Histogram)
        self.queue_waits = Histogram()
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def text(self) -> bytes:
        """The exposition text of all metrics."""
        return generate_latest(self.registry)

    def _counts(self) -> Iterator[tuple[str, Labels, float]]:
        for (route, code), count in self.requests.items():
            yield "launcher_requests", (route, str(code)), count
        for reason, count in self.refusals.items():
            yield "launcher_refusals", (reason,), count
        for (replica, stage), count in self.engine_failures.items():
            yield "launcher_engine_failures", (str(replica), stage), count
        for reason, count in self.retries.items():
            yield "launcher_retries", (reason,), count
        yield "launcher_client_disconnects", (), self.client_disconnects
        yield "launcher_client_stalls", (), self.client_stalls
        yield "launcher_received_bytes", (), self.received_bytes
        yield "launcher_sent_bytes", (), self.sent_bytes
        yield from self._gauges()

    def _histograms(self) -> Iterator[tuple[str, Labels, Histogram]]:
        for route, histogram in self.durations.items():
            yield "launcher_request_duration_seconds", (route,), histogram
        for replica, histogram in self.first_bytes.items():
            yield "launcher_engine_first_byte_seconds", (str(replica),), histogram
        yield "launcher_queue_wait_seconds", (), self.queue_waits

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks of a collector."""
        families: dict[str, CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily] = {}
        kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
        for name, (kind, labels, text) in TABLE.items():
            families[name] = kinds[kind](name, text, labels=labels)
        for name, labels, value in self._counts():
            families[name].add_metric(labels, value)  # type: ignore[call-arg, arg-type]
        for name, labels, histogram in self._histograms():
            families[name].add_metric(labels, histogram.buckets(), histogram.total)  # type: ignore[arg-type]
        yield from families.values()
