"""Tuning: the search finds what holds most, trials are made once and remembered, and what was found can be pasted."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from launcher.profile.load import load_profile
from loadtests import bench, trials
from loadtests.deployment import ROOT
from loadtests.trials import Failed, Late
from loadtests.tune import candidates, options
from loadtests.tune_report import paste
from loadtests.tune_search import MOST_DOWN, MOST_UP, Settings, best_setting, highest_rate
from tests.loadtests.test_bench import group
from tests.process.deployment import CONFIG, FAKE_PYTHON, PROFILE

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
        self.gateway = self.engine = ""

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = self

        class Deployment:
            gateway = ""

            def __init__(self, _: str, sets: list[str]) -> None:
                self._name = ",".join(sets)

            def __enter__(self) -> Deployment:
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
            good = 100 if rate <= world.capacity[name] else 80
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
    assert "| 9 |  | not started: 9 GiB, 8 GiB there |" in said.out
    assert "| 7 |  | error: no room for it |" in said.out
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
    assert "| · | 2 | the engine died |" in said.out
    assert world.started[:2] == ["", ""]  # a fresh one after it
    assert "measured again: not yet" in said.out


def test_a_profile_that_does_not_start_ends_it(
    world: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del world.capacity[""]
    assert bench.main(told(tmp_path / "tune.html")) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: the profile as it is: no room for it"


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
    assert one.seconds_at(0.5) == pytest.approx(200.0)
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole of it on a fake engine whose answers take 0.4 s: one at a time holds some 2/s, eight hold whatever comes."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    profile, out = tmp_path / "fake.yaml", tmp_path / "tune.html"
    profile.write_text(PROFILE.format(python=FAKE_PYTHON, replicas=1) + "admission: {max_in_flight: 1}\n")
    monkeypatch.setenv("FAKE_ENGINE_PYTHON", sys.executable)
    monkeypatch.setenv("FAKE_ENGINE", json.dumps({"first_token_s": 0.4}))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trials, "WARM_UP_S", 1.0)
    told = [
        "--slo", "e2e=1", "--percentile", "75", "--rate", "3", "--seconds", "2", "--precision", "1", "--rounds", "1",
        "--scenario", "fixed", "--scale", "0.02", "--vary", "admission.max_in_flight=8",
    ]  # fmt: skip
    monkeypatch.setattr("loadtests.tune_search.MOST_UP", 2)
    assert bench.main(["tune", str(profile), *told, "--out", str(out)]) == 0
    assert yaml.safe_load(capsys.readouterr().out.rpartition("|")[2]) == {"admission": {"max_in_flight": 8}}
    rows = json.loads(out.with_suffix(".json").read_text())["rows"]
    best = max(row["rate"] for row in rows if row["settings"] and row["figures"]["good"] == row["figures"]["sent"])
    assert best > 4
