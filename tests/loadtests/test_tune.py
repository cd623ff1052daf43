"""Tuning: the search finds what holds most, trials are made once and remembered, and what was found can be pasted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http.client import RemoteDisconnected
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from launcher.profile.load import load_profile
from loadtests import bench, trials
from loadtests.deployment import ROOT
from loadtests.failures import Failed, Late
from loadtests.progress import Bar, Count
from loadtests.tune import candidates, options
from loadtests.tune_report import _lines, cells, html, is_good, paste, table
from loadtests.tune_search import MOST_DOWN, MOST_UP, Settings, best_setting, highest_rate
from tests.loadtests.test_bench import group

CPU = str(ROOT / "profiles" / "cpu-smollm2.yaml")
SLO = ("--slo", "ttft=1s,itl=60ms")


class TestSearch:
    @given(st.floats(0.2, 50), st.floats(0.01, 0.5))
    def test_the_highest_rate_is_found_within_the_precision(self, limit: float, precision: float) -> None:
        asked: list[float] = []
        found = highest_rate(lambda rate: asked.append(rate) or rate <= limit, 1.0, precision)  # type: ignore[func-returns-value]
        assert found is not None
        assert limit / (1 + precision) <= found * 1.000001
        assert found <= limit
        assert len(asked) < MOST_UP + 12
        assert len(asked) == len(set(asked))

    def test_where_nothing_holds_it_gives_up(self) -> None:
        asked: list[float] = []
        assert highest_rate(lambda rate: bool(asked.append(rate)), 1.0, 0.1) is None
        assert len(asked) == MOST_DOWN + 1

    def test_where_everything_holds_it_stops_too(self) -> None:
        assert highest_rate(lambda _: True, 1.0, 0.1) == pytest.approx(1.3**MOST_UP)

    def test_one_key_after_the_other_is_moved_until_nothing_is_better(self) -> None:
        """b helps only where a has been moved, so that a second pass is needed."""
        served = {(): 1.0, ("a",): 2.0, ("b",): 0.5, ("a", "b"): 3.0}
        asked: list[tuple[tuple[str, ...], float | None]] = []

        def rate_of(settings: Settings, to_beat: float | None) -> float | None:
            asked.append((tuple(sorted(settings)), to_beat))
            rate = served[tuple(sorted(settings))]
            return rate if to_beat is None or rate > to_beat else None

        assert best_setting({"b": ["1"], "a": ["1"]}, rate_of) == ({"a": "1", "b": "1"}, 3.0)
        assert asked == [((), None), (("b",), 1.0), (("a",), 1.0), (("a", "b"), 2.0)]

    def test_the_profiles_own_values_may_be_the_best(self) -> None:
        assert best_setting({"a": ["1", "2"]}, lambda settings, _: None if settings else 2.0) == ({}, 2.0)


class Simulated:
    """Stands for the machine: how much each setting holds, and which do not start; counts what was asked."""

    def __init__(self, capacity: dict[str, float]) -> None:
        self.capacity, self.started, self.asked = capacity, list[str](), list[tuple[str, float]]()
        self.faults: list[Exception] = []
        self.client = float("inf")  # the rate that the load generator cannot keep up with
        self.again = 0.0  # what all hold when they are measured again
        self.unstartable: list[tuple[int, Exception]] = []  # after so many starts, the next one fails
        self.gateway = self.engine = ""

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = self

        class Deployment:
            gateway = ""

            def __init__(self, _: str, sets: list[str]) -> None:
                self._name = ",".join(sets)

            def __enter__(self) -> Deployment:
                if world.unstartable and len(world.started) == world.unstartable[0][0]:
                    raise world.unstartable.pop(0)[1]
                if self._name not in world.capacity:
                    raise SystemExit("`launcher up` failed:\nerror: no room for it\n→ less")
                world.started.append(self._name)
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def until_idle(self) -> None:
                pass

        def open_loop(_: Any, rate: float, seconds: float, seed: int) -> dict[str, Any]:
            if world.faults:
                raise world.faults.pop(0)
            name = world.started[-1]
            world.asked.append((name, rate))
            if rate >= world.client:
                raise Late("late")
            good = 100 if rate <= (world.capacity[name] if seed == 1 else world.again or world.capacity[name]) else 80
            return {"scenarios": {"all": {**group(), "good": good, "sent": 100}}}

        monkeypatch.setattr(trials, "Deployment", Deployment)
        monkeypatch.setattr(trials.Driver, "open_loop", open_loop)
        monkeypatch.setattr(trials.Driver, "closed_loop", lambda *_: {"scenarios": {"all": group(good=3.0)}})
        monkeypatch.setattr(trials, "refused", lambda _, sets: "9 GiB, 8 GiB there" if "n=9" in sets else None)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulated]:
    one = Simulated({"": 2.0, "n=1": 1.0, "n=4": 5.0})
    one.install(monkeypatch)
    return one


def told(out: Path, *more: str) -> list[str]:
    return ["tune", CPU, *SLO, "--vary", "n=1,4,7,9", "--out", str(out), *more]


def test_the_best_is_found_measured_again_and_printed(
    world: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "tune.html"
    assert bench.main(told(out)) == 0
    said = capsys.readouterr()
    *_, best = [rate for name, rate in world.asked if name == "n=4" and rate <= 5.0]
    assert 4.5 < best <= 5.0
    assert len([one for one in world.asked if one[0] == "n=1"]) == 1
    assert world.started == ["", "n=1", "n=4", "n=4", "", "n=4"]  # n=7 came between
    assert "| 9 |  |  | not started: 9 GiB, 8 GiB there |" in said.out
    assert "| 7 |  |  | error: no room for it |" in said.out
    assert "n=7: error: no room for it\n→ less" in said.err
    assert "measured again: held in 2 of 2 rounds, 100.0% good" in said.out
    assert re.search(r"# the profile's own values held (1\.9|2)\S*/s; measured again: held in 2 of 2 rounds", said.out)
    assert said.out.rstrip().endswith("n: 4")
    assert "<svg" in out.read_text()
    assert "<script" not in out.read_text()


def test_it_goes_on_where_it_was(
    world: Simulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tune.html"
    world.faults = [KeyboardInterrupt()]  # type: ignore[list-item]
    assert bench.main(told(out)) == 130
    assert "goes on from there" in capsys.readouterr().err
    assert bench.main(told(out)) == 0
    asked, text = list(world.asked), capsys.readouterr().out
    assert bench.main(told(out)) == 0
    assert world.asked == asked
    assert capsys.readouterr().out == text
    assert bench.main(told(out, "--percentile", "50")) == 1
    assert "has figures of another load" in capsys.readouterr().err


def test_a_failed_run_is_a_row_and_a_late_load_generator_has_a_second_try(
    world: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.faults = [Late("late"), Failed("the engine died")]
    assert bench.main(told(tmp_path / "tune.html", "--rate", "2", "--rounds", "0")) == 0
    said = capsys.readouterr()
    assert "| · | 2 | search | the engine died |" in said.out
    assert world.started[:2] == ["", ""]  # a fresh one after it
    assert "measured again: not yet" in said.out


def test_a_profile_that_does_not_start_ends_it(
    world: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del world.capacity[""]
    assert bench.main(told(tmp_path / "tune.html")) == 1
    assert capsys.readouterr().err.splitlines()[-2:] == ["error: the profile as it is: no room for it", "→ less"]


def test_where_the_load_generator_cannot_keep_up_the_answer_is_a_lower_bound(
    world: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The engine is not to blame, and goes on running; nothing else is started that could not be seen to do better."""
    world.client, out = 1.9, tmp_path / "tune.html"
    assert bench.main(told(out)) == 0
    said = capsys.readouterr()
    limit = r"the load generator cannot keep up at 1\.\d+/s: the figures say nothing beyond it \(more cores, or another machine"
    assert re.search(limit, " ".join(said.err.split()))
    assert re.search(rf"# This is a lower bound: {limit}", said.out)
    assert "nothing to change" not in said.out
    assert world.started == [""]
    found = re.search(r"# ([\d.]+) requests/s held", said.out)
    assert found is not None
    assert 1.7 < float(found[1]) < 1.9
    assert [row for row in json.loads(out.with_suffix(".json").read_text())["rows"] if row.get("is_late")]


def test_a_load_generator_that_keeps_up_with_nothing_is_said(
    world: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.client = 0.0
    assert bench.main(told(tmp_path / "tune.html")) == 1
    said = capsys.readouterr().err
    assert "error: the load generator cannot keep up at " in said
    assert "allow more with --slo" not in said


def test_what_does_not_hold_again_is_not_to_be_pasted(
    world: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.again = 0.1
    assert bench.main(told(tmp_path / "tune.html")) == 1
    *_, first, second, third, last = capsys.readouterr().out.splitlines()
    assert "measured again: held in 0 of 2 rounds, 80.0% good" in first
    assert second == "# It did not hold again: measure longer (--seconds), or ask for less"
    assert third.startswith("# the profile's own values held")
    assert last == "# n: 4"


@pytest.mark.parametrize("fault", [SystemExit("error: gone"), OSError("no memory"), RemoteDisconnected("it hung up")])
def test_a_start_that_fails_while_the_best_is_measured_again_costs_that_round(
    world: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: Exception
) -> None:
    world.unstartable = [(4, fault)]  # after the profile's own, n=1, n=4 and, for the first round, n=4 again
    assert bench.main(told(tmp_path / "tune.html")) == 0
    said = capsys.readouterr()
    assert f"as the profile has it, measured again: {fault}" in said.err
    assert said.out.rstrip().endswith("n: 4")


def test_keys_of_an_earlier_run_have_columns_too(
    world: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tune.html"
    assert bench.main(told(out)) == 0
    capsys.readouterr()
    told_again = ["tune", CPU, *SLO, "--vary", "m=1", "--out", str(out)]
    assert bench.main(told_again) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| m | n | offered/s | trial |")
    assert any(line.startswith("| · | 4 |") for line in lines)


def test_the_capacity_is_of_so_many_users(world: Simulated, tmp_path: Path) -> None:
    out = tmp_path / "tune.html"
    for users in ("4", "8", "8"):
        assert bench.main(told(out, "--users", users)) == 0
    rows = json.loads(out.with_suffix(".json").read_text())["rows"]
    assert [row["users"] for row in rows if row["rate"] == 0] == [4, 8]


def test_files_are_replaced_and_not_written_over(world: Simulated, tmp_path: Path) -> None:
    """Whoever is stopped while a file is written keeps the one before it."""
    out = tmp_path / "tune.html"
    assert bench.main(told(out, "--users", "4")) == 0
    files = (out, out.with_suffix(".json"))
    kept = {file: file.read_text() for file in files}
    for file in files:
        file.with_suffix(f"{file.suffix}.kept").hardlink_to(file)
    assert bench.main(told(out, "--users", "8")) == 0
    for file, text in kept.items():
        assert file.with_suffix(f"{file.suffix}.kept").read_text() == text != file.read_text()


def test_shares_are_compared_without_rounding() -> None:
    assert is_good({"good": 999, "sent": 1000}, 99.9)
    assert is_good({"good": 49, "sent": 50}, 98.0)
    assert not is_good({"good": 998, "sent": 1000}, 99.9)
    assert not is_good({"good": 0, "sent": 0}, 50.0)


def trial(rate: float | None, good: int = 100, seed: int = 1, **settings: str) -> dict[str, Any]:
    key = {"settings": {name.replace("__", "."): value for name, value in settings.items()}, "rate": rate, "seed": seed}
    return {**key, "figures": {**group(), "good": good, "sent": 100}}


def test_the_table_is_in_the_order_of_numbers_and_tells_rounds_apart() -> None:
    rows = [trial(2.0, n="1024"), trial(2.0, n="128"), trial(2.0, 98, 2, n="128"), trial(0.0), trial(1.0, n="1")]
    found = cells(rows, ["n"], 1)
    assert [line[:4] for line in found] == [
        ["n", "offered/s", "trial", "good"],
        ["·", "as it can", "capacity", "100/100"],
        ["1", "1", "search", "100/100"],
        ["128", "2", "search", "100/100"],
        ["128", "2", "again", "98/100"],
        ["1024", "2", "search", "100/100"],
    ]
    assert "| 1 | 1 | search |" in table(rows, ["n"], 1)


def test_lines_are_of_one_setting_each_and_repeated_rounds_one_point() -> None:
    same = [trial(2.0, engine__max_num_seqs="2048"), trial(2.0, engine__max_num_batched_tokens="2048")]
    again = [trial(2.0, 80, 2, engine__max_num_seqs="2048"), trial(2.0, 90, 3, engine__max_num_seqs="2048")]
    found = _lines([*same, *again], lambda one: one["good"])
    assert {line.name: list(line.points) for line in found} == {
        "max_num_batched_tokens=2048": [(2.0, 100)],
        "max_num_seqs=2048": [(2.0, 90)],
    }
    page = html(
        {
            "when": "w",
            "machine": "m",
            "load": {"profile": "p", "seed": 1, "slo": {"ttft": 1.0}, "scale": None},
            "rows": same,
        }
    )
    assert "<dd>ttft ≤ 1 s</dd>" in page
    assert "<dd>none</dd>" in page


def test_an_unknown_number_of_steps_is_no_question_mark() -> None:
    bar = Bar(Count(), console=Console(file=StringIO()))
    bar.add_task("", total=None)
    bar.add_task("", total=3)
    assert [Count().render(task).plain for task in bar.tasks] == ["", "0/3"]


def test_limits_that_nothing_holds_are_said(
    world: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.capacity = {"": 0.001, "n=1": 0.001, "n=4": 0.001}
    assert bench.main(told(tmp_path / "tune.html")) == 1
    assert "no setting holds any rate within the limits: allow more with --slo" in capsys.readouterr().err


def test_trials_are_long_enough_for_the_percentile(tmp_path: Path) -> None:
    chosen = options(["p.yaml", *SLO, "--out", str(tmp_path / "x.html")])
    chosen.target = CPU
    one = trials.Trials(chosen, trials.Progress())
    assert one.seconds_at(0.5) == pytest.approx(600.0)
    assert one.seconds_at(50) == 30.0


def test_without_vary_the_two_knobs_of_the_batch_are_moved(tmp_path: Path) -> None:
    chosen = options([CPU, *SLO, "--out", str(tmp_path / "x.html")])
    found = candidates(chosen)
    assert found == {"engine.max_num_seqs": ("4", "16", "32"), "engine.max_num_batched_tokens": ("2048", "8192")}
    for key, values in found.items():
        for value in values:
            load_profile(Path(CPU), sets=[f"{key}={value}"], env={})


def test_what_is_pasted_is_the_profiles_yaml() -> None:
    load = {"slo": {"ttft": 1.0}, "percentile": 99.0, "scenario": "chat", "seed": 1}
    text = paste({"engine.max_num_seqs": "16", "admission.deadline": "2s"}, 3.0, None, [], load)
    assert yaml.safe_load(text) == {"engine": {"max_num_seqs": 16}, "admission": {"deadline": "2s"}}
    assert "own values held no rate at all" in text
    assert "nothing to change" in paste({}, 3.0, 3.0, [], load)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "--slo"),
        (["--slo", "x"], "--slo: 'x' is none of"),
        (["--slo", "ttft=0"], "--slo: 'ttft=0' is none of"),
        (["--slo", ""], "--slo: name a limit, such as ttft=1s,itl=60ms"),
        ([*SLO, "--percentile", "100"], "--percentile 100: must be between 0 and 100"),
        ([*SLO, "--precision", "0"], "--precision must be between 0.01 and 1"),
        ([*SLO, "--seconds", "nan"], "--users and --seconds must be more than 0"),
        ([*SLO, "--scenario", "dialogue"], "a turn needs the answer before it"),
        ([*SLO, "--vary", "engine.max_num_seqs"], "is not KEY=A,B,…"),
        ([*SLO, "--out", "x.json"], "--out: x.json is where the figures go"),
    ],
)
def test_slips(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["tune", "p.yaml", *argv])
    assert words in capsys.readouterr().err


def test_no_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["tune", "nowhere.yaml", *SLO]) == 1
    assert "nowhere.yaml: there is no such file" in capsys.readouterr().err


def test_more_in_flight_holds_more(
    fake_profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole of it on a fake engine whose answers take 0.4 s: one at a time holds some 2/s, eight hold whatever comes."""
    out = tmp_path / "tune.html"
    fake_profile.write_text(fake_profile.read_text() + "admission: {max_in_flight: 1}\n")
    monkeypatch.setenv("FAKE_ENGINE", json.dumps({"first_token_s": 0.4}))
    monkeypatch.setattr(trials, "MISSES", 1)
    told = [
        "--slo", "e2e=1", "--percentile", "75", "--rate", "3", "--seconds", "2", "--precision", "1", "--rounds", "1",
        "--scenario", "fixed", "--scale", "0.02", "--vary", "admission.max_in_flight=8",
    ]  # fmt: skip
    monkeypatch.setattr("loadtests.tune_search.MOST_UP", 2)
    assert bench.main(["tune", str(fake_profile), *told, "--out", str(out)]) == 0
    assert yaml.safe_load(capsys.readouterr().out.rpartition("|")[2]) == {"admission": {"max_in_flight": 8}}
    rows = json.loads(out.with_suffix(".json").read_text())["rows"]
    held = [row for row in rows if "figures" in row and is_good(row["figures"], 75)]
    best, own = (max(row["rate"] for row in held if bool(row["settings"]) is is_moved) for is_moved in (True, False))
    assert best > 1.9 * own  # --precision 1
