"""The overload comparison: what it works out, and one small round of it over the whole command line and a fake engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadtests.overload import BARE, CAPPED, GATEWAY, Bench, arguments, main
from loadtests.tally import Record, summary
from loadtests.workloads import WORKLOADS, Planned, with_limits


def bench(*options: str, **limits_s: float) -> Bench:
    chosen = arguments(["p.yaml", *options])
    return Bench(chosen, with_limits(WORKLOADS[chosen.workload], limits_s), capacity=chosen.capacity)


def run(good: int, offered: int = 10, seconds: float = 10.0) -> dict[str, Any]:
    """A run's figures."""
    kind = WORKLOADS["h200"][0]
    records = [
        Record(Planned(number, 1.0, kind, 128), status=200, first_event_at=1.5 if number < good else 9.0)
        for number in range(offered)
    ]
    return {**summary(records, seconds), "load_average": [1.0, 2.0]}


def test_deadlines_follow_from_the_limits() -> None:
    """0.8 of the limit at both lengths: what is sent later would come too late."""
    base, per_1k = bench(short=1.0, long=4.0).deadlines()
    assert base == "admission.deadline=800ms"
    mean_short, mean_long = 64, 768
    added_ms = int(per_1k.removeprefix("admission.deadline_per_1k=").removesuffix("ms"))
    assert added_ms * (mean_long - mean_short) / 1000 == pytest.approx(0.8 * 3000, rel=0.01)
    assert bench("--no-deadlines", short=1.0, long=4.0).deadlines() == ()
    assert bench(short=2.0, long=1.0).deadlines()[1] == "admission.deadline_per_1k=0ms"


def test_rates_are_multiples_of_the_capacity_or_given() -> None:
    assert bench("--capacity", "20").rates == [14.0, 34.0, 70.0]
    assert bench("--rates", "26", "40", "80").rates == [26.0, 40.0, 80.0]


def test_vllms_own_caps_follow_its_own_rule() -> None:
    """Target TTFT × prefill rate: 10 requests/s of 0.7·64 + 0.3·768 tokens, for 2 s."""
    one = bench("--capacity", "10", "--own-caps", "--engine-arg=--x", short=2.0, long=6.0)
    assert one.caps() == ('engine.extra_args=["--x", "--max-num-queued-tokens=5504"]',)
    assert bench("--cap=--max-num-queued-reqs=9").caps() == ('engine.extra_args=["--max-num-queued-reqs=9"]',)
    assert bench().caps() == ()
    with pytest.raises(SystemExit, match="--own-caps needs the engine's capacity"):
        main(["p.yaml", "--own-caps", "--rates", "40"])


def test_the_report_compares_round_by_round() -> None:
    one = bench("--workload", "h200", "--rates", "40", "--rounds", "3")
    one.runs = {
        (BARE, 40.0): [run(2), run(4), run(1)],
        (GATEWAY, 40.0): [run(8), run(8), run(6)],
        (CAPPED, 40.0): [run(4), run(5), run(3)],
    }
    lines = one.report().splitlines()
    assert lines[0].startswith("3 rounds of 30 s each, alternating; medians. Good: first token within 1000 ms (short)")
    assert "Load average while measuring: 2.0 to 2.0" in lines[0]
    assert [line.split("|")[1].strip() for line in lines[4:]] == [BARE, CAPPED, GATEWAY]
    assert lines[4].endswith(
        "| 20 % | 0.2 | 500 / 9,000 | 4.00× (2.00 to 6.00) |".replace("500 / 9,000", "8,000 / 8,000")
    )
    assert lines[5].split("|")[-2].strip() == "2.00× (1.60 to 2.00)"
    assert lines[6].split("|")[-2].strip() == ""


def test_the_report_tells_the_bound_and_lives_with_half_a_run() -> None:
    one = bench("--workload", "h200", "--capacity", "28", "--factors", "1.7")
    one.runs = {(BARE, 47.6): [run(2)]}
    text = one.report()
    assert "Capacity (closed loop, bare engine): 28 requests/s, so 36,915 prompt tokens/s" in text
    assert "fluid bound by these: 41.3 at 47.6/s" in text
    one.runs = {}
    assert "(no run was completed)" in one.report()


def test_one_round_over_the_command_line(
    fake_profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two starts: the engine as the profile has it for two targets, and one with caps of its own."""
    main(
        [
            str(fake_profile), "--api", "completions", "--rates", "20", "--rounds", "1", "--seconds", "0.5",
            "--warm-up", "0.2",            "--slo", "short=5,long=5", "--cap=--max-num-seqs=7", "--json", str(tmp_path / "out.json"),
        ]
    )  # fmt: skip
    out = capsys.readouterr()
    rows = [line.split("|")[1:-1] for line in out.out.splitlines() if line.startswith("| ")][1:]
    assert [row[0].strip() for row in rows] == [BARE, CAPPED, GATEWAY]
    assert [row[3].strip() for row in rows] == ["100 %"] * 3
    assert rows[0][-1].strip() == "1.00× (1.00 to 1.00)"
    assert "admission.deadline=4000ms" in out.err
    assert "--max-num-seqs=7" in out.err
    runs = json.loads((tmp_path / "out.json").read_text())["runs"]
    assert len({run["runs"][0]["offered"] for run in runs}) == 1  # the same arrivals for each
