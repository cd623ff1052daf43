"""What counts as good, and the tables."""

from __future__ import annotations

from typing import Any

import pytest

from loadtests.tally import Record, fluid_bound, markdown, medians, percentile, ratios, summary
from loadtests.workloads import WORKLOADS, Planned

SHORT, LONG = WORKLOADS["h200"]  # limits of 1 s and 3 s


def record(ttft_s: float | None, kind: Any = SHORT, at_s: float = 5.0, **more: Any) -> Record:
    first_at = None if ttft_s is None else at_s + ttft_s
    values: dict[str, Any] = {"status": 200, "first_event_at": first_at, "sent_at": at_s + 0.002, "ended_at": at_s + 4}
    return Record(Planned(0, at_s, kind, kind.prompt_tokens[0]), **{**values, **more})


def test_good_is_a_first_token_in_time_of_an_answer_that_came_whole() -> None:
    assert record(1.0).is_good
    assert not record(1.001).is_good
    assert record(2.9, LONG).is_good
    assert not record(0.1, reason="broken off").is_good
    assert not record(0.1, status=429, reason="queue_timeout").is_good
    assert not record(None).is_good


def test_the_first_token_counts_from_when_it_was_due_and_is_one_with_text() -> None:
    late = record(0.5, sent_at=5.4)
    assert late.ttft_s == 0.5
    assert record(0.1, first_text_at=5.7).ttft_s == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("share", "value"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100), (0.001, 1)]
)  # fmt: skip
def test_percentiles(share: float, value: int) -> None:
    assert percentile(range(1, 101), share) == value
    assert percentile([7.0], share) == 7.0
    assert percentile([], share) is None


def test_a_run_in_figures() -> None:
    records = [
        record(0.1), record(0.4), record(1.5), record(2.0, LONG),
        record(None, status=429, reason="queue_timeout", retry_after_s=2.5, ended_at=5.2),
        record(None, LONG, status=503, reason="x", retry_after_s=1.0), record(None, status=0, reason="unfinished"),
        record(0.2, prompt_tokens=130),
    ]  # fmt: skip
    run = summary(records, 4.0)
    assert (run["offered"], run["served"], run["good"]) == (8, 5, 4)
    assert (run["offered_per_s"], run["goodput_per_s"], run["good_share"]) == (2.0, 1.0, 0.5)
    assert run["not_served"] == {"429 queue_timeout": 1, "503 x": 1, "0 unfinished": 1}
    assert run["retry_after_s"] == {"count": 2, "p50": 1.0, "max": 2.5}
    assert run["prompt_tokens_off"] == 2
    assert run["sent_late_ms"]["p99"] == 2.0
    assert list(run["kinds"]) == ["short", "long"]
    short = run["kinds"]["short"]
    assert (short["offered"], short["served"], short["good"], short["slo_ms"]) == (6, 4, 3, 1000.0)
    assert short["ttft_ms"] == {"p50": 200.0, "p95": 1500.0, "p99": 1500.0}


def test_a_run_without_requests() -> None:
    run = summary([], 1.0)
    assert (run["offered"], run["good_share"], run["goodput_per_s"]) == (0, None, 0.0)


def test_medians_go_figure_by_figure() -> None:
    runs = [{"a": 1.0, "b": {"c": value}, "d": {"e": None if value == 2 else value}} for value in (2, 9, 4)]
    assert medians(runs) == {"a": 1.0, "b": {"c": 4}, "d": {"e": 6.5}}


def test_ratios_go_round_by_round() -> None:
    ours = [{"goodput_per_s": value} for value in (4.0, 6.0, 1.0)]
    theirs = [{"goodput_per_s": value} for value in (2.0, 2.0, 0.0)]
    assert ratios(ours, theirs) == [2.0, 3.0, float("inf")]


def test_the_fluid_bound_takes_the_shortest_prompts_first() -> None:
    kinds = (LONG, SHORT)
    assert fluid_bound(kinds, 20, 37_000) == 20  # all of them
    short, rest = 0.7 * 40, 37_000 - 0.7 * 40 * 128
    assert fluid_bound(kinds, 40, 37_000) == pytest.approx(short + rest / 4096)
    assert fluid_bound(kinds, 1000, 37_000) == pytest.approx(37_000 / 128)


def test_the_table() -> None:
    run = summary([record(0.1), record(2.0, LONG), record(None, status=429, reason="q")], 1.5)
    rows = [("nothing", 40.0, run, "2.00×"), ("the gateway", 40.0, run, "")]
    assert markdown(rows).splitlines() == [
        "| in front of the engine | offered/s | served | good | goodput/s | short TTFT p50 / p99 ms "
        "| long TTFT p50 / p99 ms | goodput of ours over it |",
        "|---|---|---|---|---|---|---|---|",
        "| nothing | 40 | 2/3 | 67 % | 1.33 | 100 / 100 | 2,000 / 2,000 | 2.00× |",
        "| the gateway | 40 | 2/3 | 67 % | 1.33 | 100 / 100 | 2,000 / 2,000 |  |",
    ]
