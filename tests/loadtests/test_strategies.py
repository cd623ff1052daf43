"""The strategies side by side: each starts with its keys changed, failures are rows, and the table compares with all parts."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher.profile.load import load_profile
from loadtests import bench, strategies
from loadtests.deployment import ROOT
from loadtests.strategies import STRATEGIES, Load, Start, busy_means, filled, named, options, sharing
from loadtests.strategies_report import figure, html, table
from tests.loadtests.test_bench import group
from tests.process.deployment import CONFIG, FAKE_PYTHON, PROFILE


def rounds(*goods: float, **watched: float) -> list[dict[str, Any] | str]:
    return [{"figures": group(good=good), "watched": watched} for good in goods]


WHAT = {name: one.what for name, one in STRATEGIES.items()}


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_is_a_valid_profile(name: str) -> None:
    sets = filled(STRATEGIES[name].sets, {"contiguous": 3, "max_len": 8192})
    load_profile(ROOT / "profiles" / "1x4090.yaml", sets=sets, env={})


def test_the_table_compares_with_all_parts() -> None:
    found = {
        "all": {"2/s": rounds(2.0, 4.0)},
        "no-cap": {"2/s": rounds(1.0, 2.0)},
        "eager": {"2/s": ["error: it would not start | so"]},
    }
    lines = table(found, WHAT).splitlines()
    assert lines[2].startswith("| all | the profile as it is | 18/20 | 3 (2–4) | 3 (2–4) |")
    assert lines[3].endswith("| 0.50 |")
    assert "| error: it would not start / so |" in lines[4]
    assert len({line.count("|") for line in lines}) == 1


def test_several_loads_are_rows_each_and_lines_in_the_report() -> None:
    found = {
        name: {"50 users": rounds(good), "100 users": rounds(2 * good, **{"kv cache": 40.0})}
        for name, good in (("all", 2.0), ("bare", 1.0))
    }
    lines = table(found, WHAT).splitlines()
    assert "| load | served |" in lines[0]
    assert "| KV % |" in lines[0]
    assert [line.split(" | ")[2] for line in lines[2:]] == ["50 users", "100 users"] * 2
    assert lines[4].endswith("| – | 0.50 |")
    assert lines[5].endswith("| 40 | 0.50 |")
    run = {"when": "", "machine": "", "profile": "<p>", "set": [], "scenario": "", "slo": {}, "seconds": 1, "rounds": 1}
    page = html({**run, "loads": ["50 users", "100 users"], "strategies": found}, WHAT)
    assert "&lt;p&gt;" in page
    assert "<script" not in page
    assert page.count("<svg") == 10


def test_a_strategy_without_a_round_has_no_figure() -> None:
    assert figure(["error: x"], "goodput_per_s") is None


def test_all_parts_are_always_measured_too() -> None:
    assert options(["p.yaml", "--rate", "1", "--only", "no-cap"]).names == ["all", "no-cap"]


def test_the_engine_itself_is_asked_on_the_same_start() -> None:
    assert sharing(["all", "no-cap", "bare"]) == [["all", "bare"], ["no-cap"]]


def test_pictures_have_strategies_of_their_own() -> None:
    assert "image-budget-324" not in named("", "bimodal")
    assert {"image-budget-324", "no-image-budget"} <= {*named("", "mixed")} & {*named("", "pictures")}


def test_only_what_was_seen_at_work_is_averaged() -> None:
    seen = [
        {"at": 1.0, "kv cache": 0.0},
        {"at": 2.0, "in flight": 4.0, "kv cache": 50.0},
        {"at": 3.0, "in flight": 2.0},
    ]
    assert busy_means(seen) == {"in flight": 3.0, "kv cache": 50.0}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["p.yaml"], "--rate"),
        (["p.yaml", "--rate", "1", "--only", "magic"], "--only: 'magic' is none of all, bare, no-batching"),
        (["p.yaml", "--rate", "1", "--slo", "x"], "--slo: 'x' is none of"),
        (["p.yaml", "--rate", "0"], "argument --rate: '0': must be numbers of more than 0, such as 1,2,4"),
        (["p.yaml", "--users", "nan"], "argument --users: 'nan': must be numbers of more than 0"),
        (["p.yaml", "--rate", "1", "--users", "1"], "not allowed with argument --rate"),
        (["p.yaml", "--rate", "1", "--rounds", "0"], "--rounds and --seconds must be more than 0"),
        (["p.yaml", "--rate", "1", "--only", "no-image-budget"], "no-image-budget changes nothing without pictures"),
        (["p.yaml", "--rate", "1", "--scenario", "dialogue"], "a turn needs the answer before it"),
        (["p.yaml", "--rate", "1", "--out", "/dev/null/x.html"], "--out: /dev/null cannot be made"),
    ],
)
def test_slips(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["strategies", *argv])
    assert words in capsys.readouterr().err


def test_no_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["strategies", "nowhere.yaml", "--rate", "1"]) == 1
    assert "nowhere.yaml: there is no such file" in capsys.readouterr().err


def test_what_was_measured_before_an_interruption_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(start: Start) -> None:
        if start._names != ["all"]:
            raise KeyboardInterrupt
        start._keep("all", Load(1, True), rounds(2.0)[0])

    monkeypatch.setattr(Start, "run", run)
    out = tmp_path / "new" / "x.html"
    profile = str(ROOT / "profiles" / "cpu-smollm2.yaml")
    assert bench.main(["strategies", profile, "--rate", "1", "--only", "no-cap", "--out", str(out)]) == 130
    assert len(json.loads(out.with_suffix(".json").read_text())["strategies"]["all"]["1/s"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| all |")


def test_two_of_them_and_one_that_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    profile, out = tmp_path / "fake.yaml", tmp_path / "out.html"
    profile.write_text(PROFILE.format(python=FAKE_PYTHON, replicas=1))
    monkeypatch.setenv("FAKE_ENGINE_PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    broken = STRATEGIES["eager"].__class__("eager", "no compilation", ("engine.kv_cache_memory=1B",))
    monkeypatch.setitem(STRATEGIES, "eager", broken)
    told = [
        "--users",
        "2",
        "--seconds",
        "1",
        "--scenario",
        "fixed",
        "--scale",
        "0.05",
        "--only",
        "bare,contiguous,eager",
    ]
    assert bench.main(["strategies", str(profile), *told, "--out", str(out)]) == 0
    found = json.loads(out.with_suffix(".json").read_text())["strategies"]
    for name in ("all", "bare", "contiguous"):
        assert found[name]["2 users"][0]["figures"]["served"] > 0, found[name]
    assert found["eager"]["2 users"][0].startswith("error: ")
    assert "| eager | no compilation | error: " in capsys.readouterr().out
    assert "<svg" in out.read_text()


def test_a_late_load_generator_has_a_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = [strategies.Late("This run does not count: x"), {"scenarios": {"all": group()}}]

    def load(*_: object) -> Any:
        one = told.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    monkeypatch.setattr(strategies.Driver, "load", load)
    monkeypatch.setattr(strategies, "Watch", lambda *_: nullcontext(SimpleNamespace(samples=[])))
    waits: list[int] = []
    deployment: Any = SimpleNamespace(engine="", gateway="", until_idle=lambda: waits.append(1))
    chosen: Any = SimpleNamespace(seconds=1.0, seed=1)
    start = Start(chosen, ["all"], [0], strategies.Progress(), {})
    monkeypatch.setattr(start._progress, "at", lambda _: None)
    assert start._measured(deployment, strategies.ALL, Load(1, True), 0) == {"figures": group(), "watched": {}}
    told += [strategies.Late("late"), strategies.Late("late again")]
    assert start._measured(deployment, strategies.ALL, Load(1, True), 0) == "late again"
    assert len(waits) == 3
