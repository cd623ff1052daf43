"""The metrics: what requests add comes out as Prometheus reads it, within bounds."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from launcher.gateway.histograms import ITL_S, LENGTH_GROUPS, TTFT_S, Histogram, length_label
from launcher.gateway.metrics import MAX_KEYS, OUTCOMES, TABLE, Metrics, Sample
from launcher.gateway.replicas import Endpoint, Replicas
from launcher.gateway.timing import server_timing
from tests.gateway.harness import gateway_to


def metrics(*readings: Sample) -> Metrics:
    return Metrics(lambda: readings)


def samples(source: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample as prometheus_client's own parser sees it."""
    families = text_string_to_metric_families(source.text().decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(source: Metrics, name: str, **labels: str) -> float:
    return samples(source)[name, frozenset(labels.items())]


def test_every_entry_of_the_table_is_there_from_the_start() -> None:
    families = {family.name: family for family in text_string_to_metric_families(metrics().text().decode())}
    assert set(families) == set(TABLE)
    for name, (kind, _, text) in TABLE.items():
        assert (families[name].type, families[name].documentation) == (kind, text)


def test_the_names_follow_prometheus_conventions() -> None:
    for name, (kind, labels, text) in TABLE.items():
        assert re.fullmatch(r"launcher_[a-z0-9_]+[a-z0-9]", name)
        assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_ms", "_milliseconds"))
        assert kind in ("counter", "gauge", "histogram")
        assert kind != "histogram" or name.endswith("_seconds")
        assert "le" not in labels
        assert text.endswith(".")
        assert "\n" not in text
        assert "\\" not in text


def test_outcomes_and_corrections_are_zero_before_anything_happened() -> None:
    idle = metrics(("launcher_ledger_corrections", (), 0))
    assert [value(idle, "launcher_tickets_total", outcome=outcome) for outcome in OUTCOMES] == [0.0] * len(OUTCOMES)
    assert value(idle, "launcher_ledger_corrections_total") == 0


def test_a_request_is_seen_by_length_mode_and_priority() -> None:
    seen = metrics()
    series = seen.series(length_label(300), "balanced", "high")
    assert seen.series("<=1k", "balanced", "high") is series
    assert seen.series("<=1k", "balanced", "low") is not series
    assert len(seen.all_series()) == 2
    series.ttft.observe(0.3)
    series.itl.observe(0.012)
    series.e2e.observe(700.0)
    labels = {"length": "<=1k", "mode": "balanced", "priority": "high"}
    name = "launcher_time_to_first_token_seconds"
    assert value(seen, f"{name}_bucket", le="0.2", **labels) == 0
    assert value(seen, f"{name}_bucket", le="0.35", **labels) == 1
    assert value(seen, f"{name}_count", **labels) == 1
    assert value(seen, f"{name}_sum", **labels) == 0.3
    assert value(seen, "launcher_inter_token_latency_seconds_bucket", le="0.015", **labels) == 1
    assert value(seen, "launcher_e2e_request_latency_seconds_bucket", le="600.0", **labels) == 0
    assert value(seen, "launcher_e2e_request_latency_seconds_bucket", le="+Inf", **labels) == 1
    assert value(seen, "launcher_request_queue_time_seconds_count", **labels) == 0


def test_a_value_on_a_bound_belongs_to_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for number in (0.5, 1.0, 1.5, 2.0, 9.0):
        histogram.observe(number)
    assert histogram.cumulative() == [2, 4, 5]
    assert histogram.total == 14.0


@pytest.mark.parametrize("bounds", [TTFT_S, ITL_S], ids=["ttft", "itl"])
def test_bounds_rise(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))


@pytest.mark.parametrize(
    ("tokens", "group"), [(0, 0), (256, 0), (257, 1), (1024, 1), (1025, 2), (4096, 2), (16384, 3), (16385, 4)]
)
def test_length_groups(tokens: int, group: int) -> None:
    assert length_label(tokens) == LENGTH_GROUPS[group]


def test_readings_come_with_their_kind() -> None:
    seen = metrics(("launcher_ledger_kv_tokens", ("1",), 7), ("launcher_ledger_corrections", (), 2))
    assert value(seen, "launcher_ledger_kv_tokens", replica="1") == 7
    assert value(seen, "launcher_ledger_corrections_total") == 2


def test_labels_are_escaped() -> None:
    seen = metrics()
    name = 'a "quoted" name\\with\nall of it'
    seen.served(name, 3, 4)
    assert value(seen, "launcher_key_tokens_total", key=name, kind="output") == 4


def test_keys_are_bounded_and_nothing_is_lost() -> None:
    seen = metrics()
    for number in range(MAX_KEYS + 50):
        seen.served(f"key-{number}", 10, 1)
        seen.served(f"key-{number}", 10, 1)
    seen.rate_limited("key-0", "requests")
    seen.rate_limited("one more", "tokens")
    assert value(seen, "launcher_key_tokens_total", key="key-0", kind="prompt") == 20
    assert value(seen, "launcher_key_tokens_total", key="other", kind="prompt") == 50 * 20
    assert value(seen, "launcher_rate_limited_total", key="key-0", limit="requests") == 1
    assert value(seen, "launcher_rate_limited_total", key="other", limit="tokens") == 1
    labels = [labels for name, labels in samples(seen) if name == "launcher_key_tokens_total"]
    assert len(labels) == 2 * (MAX_KEYS + 1)


def test_the_error_of_prices_adds_up_both_ways() -> None:
    seen = metrics()
    seen.compare((100.4, 64), (110, 16))
    seen.compare((90, 8), (80, 16))
    assert value(seen, "launcher_estimate_error_tokens_total", kind="prompt") == 20
    assert value(seen, "launcher_estimate_error_tokens_total", kind="output") == 56
    assert value(seen, "launcher_counted_tokens_total", kind="prompt") == 190
    assert value(seen, "launcher_counted_tokens_total", kind="output") == 32


def test_reasons_become_labels() -> None:
    seen = metrics()
    by_label: Iterable[tuple[str, dict[str, int], str]] = (
        ("launcher_refusals_total", seen.refusals, "reason"),
        ("launcher_evictions_total", seen.evictions, "reason"),
        ("launcher_retries_total", seen.retries, "reason"),
        ("launcher_stream_resumes_total", seen.resumes, "outcome"),
    )
    for number, (name, counts, label) in enumerate(by_label, 1):
        counts["x"] = number
        assert value(seen, name, **{label: "x"}) == number


@pytest.mark.parametrize(
    ("timing", "line"),
    [
        (server_timing(0.00123, 0.0351), b'server-timing: queue;dur=1.2, engine;dur=35.1;desc="to first byte"'),
        (
            server_timing(0, 2, [(b"fetch", 0.1), (b"media", 0.004)]),
            b'server-timing: fetch;dur=100.0, media;dur=4.0, queue;dur=0.0, engine;dur=2000.0;desc="to first byte"',
        ),
    ],
)  # fmt: skip
def test_server_timing(timing: bytes, line: bytes) -> None:
    assert timing == line


def test_a_loss_is_counted_of_a_replica_that_was_ready() -> None:
    replicas = Replicas()
    replicas.add(0, Endpoint("http://127.0.0.1:1"))
    replicas.down(0, "not healthy yet")
    replicas.ready(0)
    for _ in range(2):
        replicas.down(0, "hung")
    assert replicas.all[0].losses == 1
    replicas.ready(0)
    replicas.drain(0)  # by an operator: it is well
    assert replicas.all[0].losses == 1


async def test_what_the_launcher_tells_is_on_the_page() -> None:
    async with gateway_to("http://127.0.0.1:1") as desk:
        desk.gateway.told = lambda: [("launcher_engine_given_up", ("0",), True)]
        desk.replicas.down(0, "hung")
        page = (await desk.get("/metrics")).body.decode()
    assert 'launcher_engine_given_up{replica="0"} 1.0' in page
    assert 'launcher_replica_losses_total{replica="0"} 1.0' in page
