"""The strategies side by side: each starts with its keys changed, failures are rows, and the table compares with all parts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from launcher.profile.load import load_profile
from loadtests import bench, strategies
from loadtests.deployment import ROOT
from loadtests.strategies import STRATEGIES, figure, filled, options, table
from tests.loadtests.test_bench import group
from tests.process.deployment import CONFIG, FAKE_PYTHON, PROFILE


def rounds(*goods: float) -> list[dict[str, Any] | str]:
    return [{"scenarios": {"all": group(good=good)}} for good in goods]


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_is_a_valid_profile(name: str) -> None:
    sets = filled(STRATEGIES[name].sets, {"contiguous": 3, "max_len": 8192})
    load_profile(ROOT / "profiles" / "1x4090.yaml", sets=sets, env={})


def test_the_table_compares_with_all_parts() -> None:
    text = table({"all": rounds(2.0, 4.0), "no-cap": rounds(1.0, 2.0), "eager": ["error: it would not start | so"]})
    lines = text.splitlines()
    assert lines[2].startswith("| all | the profile as it is | 18/20 | 3 (2–4) | 3 (2–4) |")
    assert lines[3].endswith("| 0.50 |")
    assert "| error: it would not start / so |" in lines[4]
    assert len({line.count("|") for line in lines}) == 1


def test_a_strategy_without_a_round_has_no_figure() -> None:
    assert figure(["error: x"], "goodput_per_s") is None


def test_all_parts_are_always_measured_too() -> None:
    assert options(["p.yaml", "--rate", "1", "--only", "no-cap"]).names == ["all", "no-cap"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["p.yaml"], "--rate"),
        (["p.yaml", "--rate", "1", "--only", "magic"], "--only: 'magic' is none of all, no-batching"),
        (["p.yaml", "--rate", "1", "--slo", "x"], "--slo: 'x' is none of"),
        (["p.yaml", "--rate", "0"], "--rate, --rounds and --seconds must be more than 0"),
        (["p.yaml", "--rate", "nan"], "--rate, --rounds and --seconds must be more than 0"),
        (["p.yaml", "--rate", "1", "--scenario", "dialogue"], "a turn needs the answer before it"),
        (["p.yaml", "--rate", "1", "--out", "/dev/null/x.json"], "--out: /dev/null cannot be made"),
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
    told = iter(rounds(2.0))

    def measured(*_: object) -> object:
        if (one := next(told, None)) is None:
            raise KeyboardInterrupt
        return one

    monkeypatch.setattr(strategies, "measured", measured)
    out = tmp_path / "new" / "x.json"
    profile = str(ROOT / "profiles" / "cpu-smollm2.yaml")
    assert bench.main(["strategies", profile, "--rate", "1", "--only", "no-cap", "--out", str(out)]) == 130
    assert len(json.loads(out.read_text())["strategies"]["all"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| all |")


def test_two_of_them_and_one_that_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    profile, out = tmp_path / "fake.yaml", tmp_path / "out.json"
    profile.write_text(PROFILE.format(python=FAKE_PYTHON, replicas=1))
    monkeypatch.setenv("FAKE_ENGINE_PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    broken = STRATEGIES["eager"].__class__("eager", "no compilation", ("engine.kv_cache_memory=1B",))
    monkeypatch.setitem(STRATEGIES, "eager", broken)
    told = ["--rate", "4", "--seconds", "1", "--scenario", "fixed", "--scale", "0.05", "--only", "all,contiguous,eager"]
    assert bench.main(["strategies", str(profile), *told, "--out", str(out)]) == 0
    found = json.loads(out.read_text())["strategies"]
    assert found["all"][0]["scenarios"]["all"]["served"] > 0
    assert found["contiguous"][0]["scenarios"]["all"]["served"] > 0
    assert found["eager"][0].startswith("error: ")
    assert "| eager | no compilation | error: " in capsys.readouterr().out
