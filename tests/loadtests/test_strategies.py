"""The strategies side by side: each starts with its keys changed, failures are rows, and the table compares with all parts."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher.profile.load import load_profile
from loadtests import bench, strategies_run
from loadtests.deployment import ROOT
from loadtests.failures import Failed, Late
from loadtests.strategies import options
from loadtests.strategies_known import ALL, STRATEGIES, Load, filled, named, sharing
from loadtests.strategies_report import figure, html, table
from loadtests.strategies_run import Start, busy_means
from tests.loadtests.test_bench import group


def rounds(*goods: float, **watched: float) -> list[dict[str, Any] | str]:
    return [{"figures": group(good=good), "watched": watched} for good in goods]


def run_of(found: dict[str, Any], *loads: str) -> dict[str, Any]:
    run = {"when": "", "machine": "", "profile": "<p>", "set": [], "scenario": "", "slo": {}, "seconds": 1, "rounds": 1}
    return {**run, "seed": 1, "any_event": False, "command": "launcher bench", "loads": [*loads], "strategies": found}


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
    assert lines[2].startswith("| all | the profile as it is | 18/20 | 0 | 3 (2–4) | 3 (2–4) |")
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
    page = html(run_of(found, "50 users", "100 users"), WHAT)
    assert "&lt;p&gt;" in page
    assert "<script" not in page
    assert page.count("<svg") == 10


def test_rounds_that_failed_are_said_in_the_row() -> None:
    why = "This run does not count: 80 ms late"
    found = {"all": {"2/s": rounds(2.0, 4.0, 4.0)}, "no-cap": {"2/s": [*rounds(1.0), why, *rounds(3.0)]}}
    lines = table(found, WHAT).splitlines()
    assert lines[0].endswith("| goodput, × all | left out |")
    assert lines[2].endswith("| 1.00 |  |")
    assert lines[3].endswith(f"| 1 of 3 rounds: {why} |")
    assert f"<td class=sentence>1 of 3 rounds: {why}</td>" in html(run_of(found, "2/s"), WHAT)


def test_goodput_is_compared_round_by_round() -> None:
    """The median of 1/2, 8/4 and 3/6: the medians of the rounds would say 3/4."""
    found = {"all": {"2/s": [*rounds(2.0, 4.0, 6.0), "late"]}, "no-cap": {"2/s": rounds(1.0, 8.0, 3.0, 100.0)}}
    assert table(found, WHAT).splitlines()[3].endswith("| 0.50 |  |")


def test_requests_that_failed_have_a_column() -> None:
    broken: list[Any] = [{"figures": {**group(), "failed": 3}, "watched": {}}] * 2
    head, _, line = table({"all": {"2/s": broken}}, WHAT).splitlines()
    assert head.split(" | ")[3] == "failed"
    assert line.split(" | ")[3] == "6"


def test_what_is_compared_with_is_coloured_also_where_it_failed() -> None:
    bar = '" height="14" fill="#218739"/>'
    assert bar in html(run_of({"all": {"2/s": rounds(2.0)}, "eager": {"2/s": rounds(1.0)}}, "2/s"), WHAT)
    assert bar not in html(run_of({"all": {"2/s": ["error: no"]}, "eager": {"2/s": rounds(1.0)}}, "2/s"), WHAT)


def test_the_axis_of_rates_says_so() -> None:
    found = {"all": {"1/s": rounds(2.0), "2/s": rounds(2.0)}}
    assert ">offered requests/s</text>" in html(run_of(found, "1/s", "2/s"), WHAT)


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
        (["p.yaml", "--users", "nan"], "argument --users: 'nan': must be whole numbers of 1 or more"),
        (
            ["p.yaml", "--users", "0.4"],
            "argument --users: '0.4': must be whole numbers of 1 or more, such as 50,100,200",
        ),
        (["p.yaml", "--users", "50,50"], "argument --users: '50,50': names a load twice"),
        (["p.yaml", "--rate", "1,1.0"], "argument --rate: '1,1.0': names a load twice"),
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


def test_the_lightest_load_comes_first() -> None:
    assert [str(load) for load in options(["p.yaml", "--users", "200,50"]).loads] == ["50 users", "200 users"]
    assert [str(load) for load in options(["p.yaml", "--rate", "2,0.5"]).loads] == ["0.5/s", "2/s"]


def test_names_say_what_is_changed() -> None:
    assert "continuous batching" in STRATEGIES["at-most-8"].what
    assert "KV cache" in STRATEGIES["no-admission"].what
    assert "shortest first" in STRATEGIES["no-admission"].what
    assert "batch token budget" in STRATEGIES["no-chunked-prefill"].what


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
    fake_profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.html"
    broken = STRATEGIES["eager"].__class__("eager", "no compilation", ("engine.kv_cache_memory=1B",))
    monkeypatch.setitem(STRATEGIES, "eager", broken)
    told = [
        "--users",
        "2",
        "--seconds",
        "3",
        "--scenario",
        "fixed",
        "--scale",
        "0.05",
        "--only",
        "bare,contiguous,eager",
        "--set",
        "engine.env.HF_TOKEN=s3cret",
    ]
    assert bench.main(["strategies", str(fake_profile), *told, "--out", str(out)]) == 0
    run = json.loads(out.with_suffix(".json").read_text())
    assert (run["seed"], run["any_event"]) == (1, False)
    assert "s3cret" not in json.dumps(run) + out.read_text()
    assert "launcher bench strategies" in out.read_text()
    found = run["strategies"]
    for name in ("all", "bare", "contiguous"):
        assert found[name]["2 users"][0]["figures"]["served"] > 0, found[name]
    assert found["eager"]["2 users"][0].startswith("error: ")
    said = capsys.readouterr()
    assert "| eager | no compilation | error: the plan does not fit: one request of " in said.out
    assert "s3cret" not in said.out + said.err
    assert "<svg" in out.read_text()


class OneStart:
    """A start whose deployment and load runs are made up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Any, engines: int = 1) -> None:
        self.answers, self.waits, self.seeds = list(answers), 0, list[str]()
        urls = [f"http://engine-{number}" for number in range(engines)]
        self.deployment: Any = SimpleNamespace(engines=urls, gateway="http://gateway", until_idle=self._until_idle)
        monkeypatch.setattr(strategies_run.Driver, "load", self._load)
        monkeypatch.setattr(strategies_run, "Watch", lambda *_: nullcontext(SimpleNamespace(samples=[])))
        monkeypatch.setattr(strategies_run, "save", lambda *_: None)
        monkeypatch.setattr(strategies_run, "Deployment", lambda *_: nullcontext(self.deployment))

    def _until_idle(self) -> None:
        self.waits += 1

    def _load(self, *told: Any) -> Any:
        self.seeds.append(told[told.index("--seed") + 1])
        one = self.answers.pop(0)
        if isinstance(one, Exception):
            raise one
        return {"scenarios": {"all": one}}

    def start(self, names: list[str], load: Load, rounds: int) -> tuple[Start, Any]:
        chosen: Any = SimpleNamespace(seconds=1.0, seed=5, loads=[load], target="p.yaml", set=[])
        found: Any = {name: {str(load): []} for name in names}
        start = Start(chosen, names, range(rounds), strategies_run.Progress(), found)
        start._progress.begin(None)
        return start, found


def test_a_late_load_generator_has_a_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    one = OneStart(monkeypatch, Late("This run does not count: x"), group(), Late("late"), Late("late again"))
    start, _ = one.start(["all"], Load(1, True), 1)
    assert start._measured(one.deployment, ALL, Load(1, True), 0) == {"figures": group(), "watched": {}}
    assert start._measured(one.deployment, ALL, Load(1, True), 0) == "late again"
    assert one.waits == 4


@pytest.mark.parametrize("is_open", [True, False])
def test_each_round_has_another_seed_and_keeps_its_place(is_open: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load(2, is_open)
    one = OneStart(monkeypatch, group(), group(), Failed("it broke"), group())
    start, found = one.start(["all"], load, 3)
    start.run()
    assert one.seeds[1:] == ["5", "6", "7"]  # after the warm-up
    assert [isinstance(each, str) for each in found["all"][str(load)]] == [False, True, False]


def test_one_engine_is_not_compared_with_several(monkeypatch: pytest.MonkeyPatch) -> None:
    one = OneStart(monkeypatch, group(), group(), engines=2)
    start, found = one.start(["all", "bare"], Load(1, False), 1)
    start.run()
    assert found["bare"]["1 users"] == [
        "bare asks a single engine, and behind the gateway are 2: they cannot be compared; "
        "with --set engine.replicas=1 they can"
    ]
    assert not isinstance(found["all"]["1 users"][0], str)


def test_an_engine_that_is_gone_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    one = OneStart(monkeypatch, group(), group())
    start, found = one.start(["all", "bare"], Load(1, False), 1)

    def gone() -> None:
        raise Failed("the engine at http://engine-0 could not be asked whether it works: x")

    one.deployment.until_idle = gone
    start.run()
    assert [rounds["1 users"][0][:10] for rounds in found.values()] == ["the engine"] * 2
