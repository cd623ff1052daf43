"""`launcher bench`: a small run against a fake engine of known pace, its report, and what moved between two runs."""

from __future__ import annotations

import copy
import json
import re
import signal
import subprocess
import sys
from html import escape
from http.client import IncompleteRead
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from loadtests import bench, crosscheck, driver, watch
from loadtests.bars import Bar, bars
from loadtests.compared import compared
from loadtests.driver import reason
from loadtests.plots import COLOURS, Line, _Axis, plot
from loadtests.progress import Progress
from loadtests.report import html, text_table
from loadtests.rounds import middle
from loadtests.tables import html_table, markdown_table
from tests.fakes.process import FakeEngine

ROOT = Path(__file__).resolve().parents[2]


def group(ttft: float = 0.2, good: float = 2.0) -> dict[str, Any]:
    spread = {"p50": ttft, "p95": 2 * ttft, "p99": 3 * ttft}
    return {
        "sent": 10, "served": 9, "refused": 1, "failed": 0, "good": 9, "served_per_s": good, "goodput_per_s": good,
        "output_tokens_per_s": 100.0, "ttft": spread, "itl": spread, "e2e": spread, "not_served": {"429 queue_full": 1},
    }  # fmt: skip


def made(*rounds: dict[str, Any], rate: float = 2.0, **more: Any) -> dict[str, Any]:
    told = [
        {"scenarios": {"all": one}, "samples": {"ttft": [0.1, 0.2, 0.3], "e2e": [1.0]}} for one in rounds or (group(),)
    ]
    return {
        "version": 1, "when": "2026-11-26 00:00", "machine": "m", "target": "http://127.0.0.1:8000", "model": "fake-model",
        "scenario": "chat", "slo": {"ttft": 1.0}, "seconds": 30.0, "rounds": len(told), "command": "launcher bench",
        "rates": [{"rate": rate, "rounds": told}], "timeline": [{"at": 1.0, "queued": 0.0, "kv cache": 12.0}], **more,
    }  # fmt: skip


def test_a_run_and_its_report(engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine.call_now("/_fake/set", {"first_token_s": 0.1, "inter_token_s": 0.02})
    out = tmp_path / "report.html"
    told = [
        "--rates",
        "3",
        "--seconds",
        "3",
        "--scenario",
        "fixed",
        "--scale",
        "0.1",
        "--slo",
        "ttft=0.2",
        "--out",
        str(out),
    ]
    assert bench.main([engine.url, *told]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0].split()[:3] == ["offered/s", "sent", "served"]
    run = json.loads(out.with_suffix(".json").read_text())
    ((rate, one),) = [(rate["rate"], rate["rounds"][0]["scenarios"]["all"]) for rate in run["rates"]]
    assert rate == 3
    assert one["ttft"]["p50"] == pytest.approx(0.1, abs=0.01)
    assert one["itl"]["p50"] == pytest.approx(0.02, abs=0.003)
    assert len(run["rates"][0]["rounds"][0]["samples"]["ttft"]) == one["served"] > 0
    assert run["timeline"]
    assert out.read_text().count("<svg") >= 5


def test_the_capacity_is_measured_where_no_rates_are_given(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "CAPACITY_S", 2.0)
    monkeypatch.setattr(bench, "FACTORS", (0.01,))
    engine.call_now("/_fake/set", {"first_token_s": 0.1, "inter_token_s": 0.001})
    out = tmp_path / "report.html"
    told = ["--users", "4", "--seconds", "2", "--scenario", "fixed", "--scale", "0.05", "--out", str(out)]
    assert bench.main([engine.url, *told]) == 0
    run = json.loads(out.with_suffix(".json").read_text())
    assert 10 < run["rates"][0]["rate"] / 0.01 < 45  # four users, a little more than 0.1 s each


def test_a_profile_is_started_for_it_and_stopped(
    fake_profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report.html"
    told = ["--rates", "4", "--seconds", "2", "--scenario", "fixed", "--scale", "0.05", "--out", str(out)]
    assert bench.main([str(fake_profile), *told]) == 0
    run = json.loads(out.with_suffix(".json").read_text())
    assert run["model"] == "smollm2"
    assert run["rates"][0]["rounds"][0]["scenarios"]["all"]["served"] > 0
    assert {"queued", "in flight", "prefill"} <= set(run["timeline"][-1])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "give a URL or a profile"),
        (["http://127.0.0.1:1", "--rates", "1,x"], "'1,x' is not a list of rates such as 1,2,4"),
        (["http://127.0.0.1:1", "--slo", "x=1"], "--slo: 'x=1' is none of ttft=SECONDS"),
        (["http://127.0.0.1:1", "--rates", "1,nan"], "rates are more than 0"),
        (["http://127.0.0.1:1", "--rounds", "0"], "must be more than 0"),
        (
            ["http://127.0.0.1:1", "--out", "x.json"],
            "--out: x.json is where the figures go; name the report, such as x.html",
        ),
        (["http://127.0.0.1:1", "--out", "/dev/null/x.html"], "--out: /dev/null cannot be made"),
        (["cross-check", "http://127.0.0.1:1", "--json", "/dev/null/x"], "--json: /dev/null cannot be made"),
        (["http://127.0.0.1:1", "--out", "/tmp"], "--out: /tmp is a folder"),
        (["http://127.0.0.1:1", "--scenario", "dialogue"], "a turn needs the answer before it"),
    ],
)
def test_slips(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(argv)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_nobody_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert bench.main(["http://127.0.0.1:9", "--rates", "1", "--out", str(tmp_path / "x.html")]) == 1
    assert "http://127.0.0.1:9/v1/models cannot be read" in capsys.readouterr().err


def fake_loads(monkeypatch: pytest.MonkeyPatch, *answers: dict[str, Any] | BaseException) -> None:
    """What each run of the Locust file comes to, the warm-up's first."""
    told = iter(answers)

    def load(*_: object) -> dict[str, Any]:
        if isinstance(one := next(told), BaseException):
            raise one
        return {"model": "m", **made(one)["rates"][0]["rounds"][0]}

    monkeypatch.setattr(bench.Bench, "load", load)


def test_a_round_that_was_late_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_loads(
        monkeypatch,
        bench.Late("warm"),
        group(0.1),
        bench.Late("This run does not count: <b>"),
        bench.Late("x"),
        group(0.3),
    )
    out = tmp_path / "new" / "x.html"
    assert bench.main(["http://127.0.0.1:9", "--rates", "1,2", "--rounds", "2", "--out", str(out)]) == 0
    run = json.loads(out.with_suffix(".json").read_text())
    assert [(one["rate"], len(one["rounds"])) for one in run["rates"]] == [(1, 2)]
    assert run["notes"][0] == "2/s, round 1 is left out. This run does not count: <b>"
    assert run["notes"][0] in capsys.readouterr().out
    assert "does not count: &lt;b&gt;" in out.read_text()


def test_where_no_round_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_loads(monkeypatch, group(), bench.Late("This run does not count: late."))
    assert bench.main(["http://127.0.0.1:9", "--rates", "1", "--out", str(tmp_path / "x.html")]) == 1
    assert "no round counts, so there is nothing to report. 1/s, round 1 is left out." in capsys.readouterr().err


@pytest.mark.parametrize(("end", "status"), [(bench.Failed("it broke"), 1), (KeyboardInterrupt(), 130)])
def test_what_was_measured_before_it_ended_is_kept(
    end: BaseException, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_loads(monkeypatch, group(), group(0.1), end)
    out = tmp_path / "x.html"
    assert bench.main(["http://127.0.0.1:9", "--rates", "1,2", "--out", str(out)]) == status
    assert "It ended before its last round: " in out.read_text()
    assert [one["rate"] for one in json.loads(out.with_suffix(".json").read_text())["rates"]] == [1]
    assert "error: It ended before its last round" in capsys.readouterr().err


def test_sigterm_is_as_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(bench.Bench, "load", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert bench.main(["http://127.0.0.1:9", "--rates", "1", "--out", str(tmp_path / "x.html")]) == 130
    assert "it was interrupted before anything was measured" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    "told",
    [["--key", "s3cret"], ["--key=s3cret"], ["--ke", "s3cret"], ["--k=s3cret"], ["--key=old", "--key", "s3cret"]],
)
def test_the_key_is_not_in_what_is_kept(told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_loads(monkeypatch, group(), group())
    out = tmp_path / "x.html"
    assert bench.main(["http://127.0.0.1:9", *told, "--rates", "1", "--seed", "2", "--out", str(out)]) == 0
    kept = out.read_text() + out.with_suffix(".json").read_text()
    assert "s3cret" not in kept
    assert "old" not in json.loads(out.with_suffix(".json").read_text())["command"]
    assert "--rates 1 --seed 2" in kept


def test_other_secrets_are_not_in_it_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_loads(monkeypatch, group(), group())
    out = tmp_path / "x.html"
    told = ["http://me:s3cret@127.0.0.1:9", "--set", "engine.env.HF_TOKEN=s3cret", "--rates", "1", "--out", str(out)]
    assert bench.main(told) == 0
    assert "s3cret" not in out.read_text() + out.with_suffix(".json").read_text()


def test_who_is_stopped_while_writing_keeps_the_figures_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "x.html"
    bench.keep(made(), out)
    before = out.with_suffix(".json").read_text()

    def stopped(path: Path, text: str, **_: Any) -> None:
        path.write_bytes(text[: len(text) // 2].encode())
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", stopped)
    with pytest.raises(KeyboardInterrupt):
        bench.keep(made(group(), group()), out)
    assert out.with_suffix(".json").read_text() == before


def test_a_closed_loop_has_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, ...]] = []
    monkeypatch.setattr(bench.Driver, "load", lambda _, *options: told.append(options))
    driver = bench.Driver(bench.options(["http://127.0.0.1:9"], ()), "http://127.0.0.1:9")
    driver.closed_loop(2, 1.0, 7)
    driver.closed_loop(2, 1.0)
    assert [one[-2:] for one in told] == [("--seed", "7"), ("--seed", "1")]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("`launcher up` failed:\nerror: no room\n→ less", "error: no room"),
        ("error: the plan does not fit:\n  - one request takes 2 MiB.\n    No", "error: the plan does not fit: one request takes 2 MiB."),
        ("it broke", "it broke"),
        ("", "it said nothing"),
    ],
)  # fmt: skip
def test_a_failure_is_told_by_the_line_that_says_why(said: str, why: str) -> None:
    assert reason(SystemExit(said)) == why


def test_both_clients_of_a_cross_check_have_the_key_from_their_environment(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    class Seen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, command: list[str], **more: Any) -> None:
            commands.append(command)
            super().__init__(command, **more)

    theirs = "import os; assert os.environ['OPENAI_API_KEY'][::-1] == 'terc3s'; open({path!r}, 'w').write('{{}}')"
    monkeypatch.setattr(crosscheck, "VLLM_BENCH", theirs.format(path=str(tmp_path / "vllm.json")))
    monkeypatch.setattr(subprocess, "Popen", Seen)
    engine.call_now("/_fake/set", {"first_token_s": 0.05})
    chosen = crosscheck.options([engine.url, "--key", "s3cret", "--users", "1"])
    crosscheck.by_vllm(chosen, engine.url, {"id": "smollm2"}, tmp_path)
    crosscheck.by_us(chosen, engine.url, 1.0)
    assert len(commands) == 2
    assert not any("s3cret" in part or part == "--key" for command in commands for part in command)
    asked = [one for one in engine.call_now("/_fake/seen")["requests"] if one["body"]]
    assert {dict(one["headers"]).get("authorization") for one in asked} == {"Bearer s3cret"}


class TestWatch:
    def test_each_page_is_fetched_once_and_all_engines_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pages = {
            "a": "vllm:num_requests_running 3\nvllm:kv_cache_usage_perc 0.5\n",
            "b": "vllm:num_requests_running 4\nvllm:kv_cache_usage_perc 0.7\n",
            "g": "launcher_queued 2\nvllm:num_requests_running 1\n",
        }
        asked: list[str] = []

        def page(url: str, key: str) -> str:
            asked.append(url)
            return pages.get(url.removesuffix("/metrics"), "")

        monkeypatch.setattr(watch, "page", page)
        monkeypatch.setattr(watch, "gpu_use", list)
        assert watch.Watch("g", ["a", "b"], "")._look() == {"queued": 2, "in flight": 7, "kv cache": pytest.approx(60)}
        assert watch.Watch("g", [], "")._look() == {"queued": 2, "in flight": 1}
        assert watch.Watch("", ["a"], "")._look() == {"in flight": 3, "kv cache": 50}
        assert watch.Watch("g", ["a", "gone"], "")._look() == {"queued": 2}
        assert sorted(asked) == ["a/metrics"] * 3 + ["b/metrics"] + ["g/metrics"] * 3 + ["gone/metrics"]

    def test_shares_of_several_engines_are_a_mean(self) -> None:
        text = 'vllm:kv_cache_usage_perc{e="0"} 0.9\nvllm:kv_cache_usage_perc{e="1"} 8e-1\nvllm:num_requests_running{e="0"} 3.0\n'
        text += 'vllm:num_requests_running{e="1"} 4.0\nvllm:num_requests_waiting NaN\n'
        assert watch.sums(text, watch.ENGINE_SERIES) == {"kv cache": pytest.approx(0.85), "in flight": 7.0}

    def test_a_page_that_breaks_off_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object, **__: object) -> None:
            raise IncompleteRead(b"x")

        monkeypatch.setattr(watch, "urlopen", broken)
        assert watch.page("http://127.0.0.1:9/metrics", "") == ""


def test_what_is_said_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Progress().say("error: [/x] [red]what[/red] :key:")
    assert "error: [/x] [red]what[/red] :key:" in capsys.readouterr().err


def test_over_the_command_line(tmp_path: Path) -> None:
    before, after = tmp_path / "a.json", tmp_path / "b.json"
    before.write_text(json.dumps(made(*[group(0.2), group(0.22)] * 2)))
    after.write_text(json.dumps(made(*[group(0.1), group(0.11)] * 2)))
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "bench", "--compare", str(before), str(after)],
        cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"TTFT p50 ms +210 \(200 to 220\) → 105 \(100 to 110\) +-50.0 %, better", done.stdout)


class TestCompared:
    def test_within_the_spread(self) -> None:
        told = compared(made(*[group(0.2), group(0.3)] * 2), made(*[group(0.25), group(0.35)] * 2))
        assert "TTFT p50 ms  250 (200 to 300) → 300 (250 to 350)  +20.0 %, within the spread" in told

    def test_more_goodput_is_better_and_more_ttft_is_worse(self) -> None:
        told = compared(made(*[group(0.1, 2.0)] * 4), made(*[group(0.2, 3.0)] * 5))
        assert "goodput/s    2 → 3  +50.0 %, better" in told
        assert "TTFT p50 ms  100 → 200  +100.0 %, worse" in told

    @pytest.mark.parametrize(("before", "after"), [(1, 1), (3, 4), (4, 3)])
    def test_of_few_rounds_nothing_is_claimed(self, before: int, after: int) -> None:
        told = compared(made(*[group(0.1)] * before), made(*[group(0.2)] * after))
        assert "TTFT p50 ms  100 → 200  +100.0 %, too few rounds to tell" in told
        assert "measure both with --rounds 4" in told
        assert "worse" not in told

    def test_what_differs_is_said_first(self) -> None:
        before, after = made(scale=None, seed=1, mode=""), made(scale=0.5, seed=1, model="other", mode="balanced")
        assert compared(before, after).splitlines()[:3] == [
            "The runs differ in model: fake-model before, other after.",
            "The runs differ in scale: nothing before, 0.5 after.",
            "The runs differ in mode: nothing before, balanced after.",
        ]
        assert "differ in seed" not in compared(made(), made(seed=2))  # of a run that does not say, nothing is known

    @pytest.mark.parametrize(
        ("change", "words"),
        [({"scenario": "long"}, "the runs differ in scenario: chat and long"), ({"rates": []}, "no rate in common")],
    )
    def test_what_cannot_be_compared(self, change: dict[str, Any], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            compared(made(), {**made(), **change})

    @pytest.mark.parametrize("name", ["sweep", "strategies", "tune"])
    def test_figures_of_another_measurement(
        self, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "x.json").write_text(json.dumps({"version": 1, "measurement": name}))
        assert bench.main(["--compare", str(tmp_path / "x.json"), str(tmp_path / "x.json")]) == 1
        assert f"has figures of `launcher bench {name}`: --compare takes two of" in capsys.readouterr().err

    def test_no_figures(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "x.json").write_text("{}")
        assert bench.main(["--compare", str(tmp_path / "x.json"), str(tmp_path / "x.json")]) == 1
        assert "is no figures of `launcher bench`" in capsys.readouterr().err


class TestReport:
    def test_it_asks_nobody_and_runs_nothing(self) -> None:
        page = html(made(model='<script>alert("x")</script>', scenario="chat"))
        assert "<script" not in page
        assert "&lt;script&gt;" in page
        assert "default-src 'none'" in page
        assert not re.findall(r'(?:src|href)="', page)
        assert page.count("<svg") == page.count("</svg>") >= 5
        assert "1 × 429 queue_full" in page

    def test_a_sentence_takes_the_place_of_the_figures_that_are_not_there(self) -> None:
        why = "not started: it does not <fit>"
        page = html_table(("n", "req/s", "tokens/s"), [("1", "2", "3"), ("2", why, ""), ("3", why), ("4", "–", "")])
        told = f"<td class=sentence colspan=2>{escape(why)}</td>"
        assert re.findall("<tr>(<td.*?)</tr>", page) == [
            "<td>1</td><td>2</td><td>3</td>",
            f"<td>2</td>{told}",
            f"<td>3</td>{told}",
            "<td>4</td><td>–</td><td></td>",
        ]

    def test_markdown(self) -> None:
        told = markdown_table([("n", "req/s", "tokens/s"), ("1", "2", "3"), ("2", "a | b")])
        assert told == "| n | req/s | tokens/s |\n| --- | --- | --- |\n| 1 | 2 | 3 |\n| 2 | a / b |  |"

    def test_medians_of_the_rounds(self) -> None:
        run = made(group(0.1), group(0.3), group(0.2))
        assert middle(run["rates"][0], "ttft.p50") == (0.2, 0.1, 0.3)
        assert text_table(run).splitlines()[1].split()[8] == "200"

    def test_where_nothing_was_served(self) -> None:
        empty = copy.deepcopy(group())
        for name in ("ttft", "itl", "e2e"):
            empty[name] = dict.fromkeys(("p50", "p95", "p99"))
        run = made(empty)
        run["rates"][0]["rounds"][0]["samples"] = {"ttft": [], "e2e": []}
        assert "Nothing was measured for this." in html(run)
        assert "–" in text_table(run)


class TestPlots:
    def test_each_is_a_whole_picture_with_words_for_those_who_do_not_see_it(self) -> None:
        svg = plot("A & B", "x", "y", [Line("one", [(1, 1), (2, 4)], [(0.5, 1.5), (3, 5)]), Line("two", [(1, 2)])])
        root = ElementTree.fromstring(svg)
        assert root.attrib["aria-label"] == "A & B: y over x; one; two"
        assert len(root.findall("circle")) == 3
        assert all(
            0 <= float(dot.attrib["cx"]) <= 560 and 0 <= float(dot.attrib["cy"]) <= 300
            for dot in root.findall("circle")
        )

    def test_ticks_are_round_numbers(self) -> None:
        assert _Axis(0, 97, 0, 1).ticks == [0, 20, 40, 60, 80]
        assert _Axis(0.9, 120, 0, 1, True).ticks == [1, 2, 5, 10, 20, 50, 100]
        assert _Axis(5, 5, 0, 1).ticks

    def test_a_bar_has_its_colour_by_what_it_is(self) -> None:
        colours = re.findall('fill="(#.*?)"', bars("A", "x", [Bar("a", 1, 1, 1), Bar("b", 1, 1, 1, is_reference=True)]))
        assert colours == [COLOURS[0], COLOURS[2]]

    def test_nothing_to_draw_is_said(self) -> None:
        assert "Nothing was measured" in plot("A", "x", "y", [Line("one", [])])
