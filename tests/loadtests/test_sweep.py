"""A sweep over settings: what fits is measured, what does not says why, and a second run goes on where the first was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from http.client import RemoteDisconnected
from pathlib import Path
from typing import Any

import pytest

from loadtests import bench, sweep
from loadtests.deployment import ROOT
from loadtests.facts import cell, fact
from loadtests.failures import Failed
from loadtests.planned import Unplanned, in_full, plan_of, refused
from loadtests.resumed import earlier, identity
from loadtests.sweep import combinations, family, resident, varied
from loadtests.sweep_report import html, pareto, table
from tests.loadtests.test_bench import group


def row(ttft: float, tokens: float, **settings: str) -> dict[str, Any]:
    return {"settings": settings, "figures": {**group(ttft), "output_tokens_per_s": tokens}, "memory_gib": 1.5}


def test_every_combination() -> None:
    found = combinations([varied("a=1,2"), varied("b=x,y")])
    assert found == [{"a": "1", "b": "x"}, {"a": "1", "b": "y"}, {"a": "2", "b": "x"}, {"a": "2", "b": "y"}]


def test_the_best_of_their_kind() -> None:
    rows = [row(0.1, 50, n="1"), row(0.2, 40, n="2"), row(0.3, 90, n="3"), {"settings": {"n": "4"}, "why": "no"}]
    assert [one["settings"]["n"] for one in pareto(rows)] == ["1", "3"]
    page = html({"profile": "<p>"}, rows)
    assert "&lt;p&gt;" in page
    assert "<script" not in page
    assert page.count("<svg") == 1
    load = {"profile": "p", "set": [], "slo": {"ttft": 1.0}, "scale": None, "any_event": False}
    page = html(load, [row(1.05, 50, n="a | b")], {"machine": "2 cores"})
    for told in (
        "<dd>none</dd>",
        "<dd>ttft ≤ 1 s</dd>",
        "<dd>no</dd>",
        "<dd>2 cores</dd>",
        "<td>1050</td>",
        "<td>a | b</td>",
    ):
        assert told in page


def test_figures_and_facts_are_as_people_write_them() -> None:
    assert [cell(1.05, 1000), cell(99.94), cell(0.1234), cell(None), cell(1234567.0)] == [
        "1050",
        "99.9",
        "0.123",
        "–",
        "1234567",
    ]
    assert [fact(None), fact({}), fact(["a=1", "b=2"]), fact(True), fact(30.0), fact("chat")] == [
        "none", "none", "a=1, b=2", "yes", "30", "chat",
    ]  # fmt: skip


def test_the_table_has_what_failed_too() -> None:
    text = table([row(0.1, 50, n="1"), {"settings": {"n": "2"}, "why": "not started: 5 | 4"}])
    lines = text.splitlines()
    assert lines[2].startswith("| 1 | 1.50 | 2 | 2 | 50 | 100 | 300 |")
    assert lines[3].startswith("| 2 | not started: 5 / 4 |")
    assert len({line.count("|") for line in lines}) == 1


def test_memory_is_of_the_whole_family() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import sys; x = bytearray(50_000_000); print(1, flush=True); sys.stdin.read()"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()
    pids = list(family(os.getpid()))
    assert child.pid in pids
    assert resident(child.pid) > 50_000_000
    child.communicate()
    assert resident(child.pid) == 0


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["p.yaml"], "--vary"),
        (["p.yaml", "--vary", "engine.max_num_seqs"], "is not KEY=A,B,…"),
        (["p.yaml", "--vary", "a=1", "--slo", "x"], "--slo: 'x' is none of"),
        (["p.yaml", "--vary", "a=1", "--users", "0"], "--users and --seconds must be more than 0"),
        (["p.yaml", "--vary", "a=1", "--out", "x.json"], "--out: x.json is where the figures go"),
    ],
)
def test_slips(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["sweep", *argv])
    assert words in capsys.readouterr().err


def test_it_goes_on_and_tries_again_but_not_with_an_edited_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    profile, out = tmp_path / "p.yaml", tmp_path / "new" / "x.html"
    profile.write_text((ROOT / "profiles" / "cpu-smollm2.yaml").read_text())
    asked: list[str] = []
    told = ["sweep", str(profile), "--vary", "n=1,2,3", "--out", str(out)]

    def measured(_: object, settings: dict[str, str]) -> dict[str, Any]:
        asked.append(settings["n"])
        if settings["n"] == "3" and len(asked) < 4:
            raise KeyboardInterrupt
        return {"settings": settings, "why": "[/x] broke"} if len(asked) == 2 else row(0.1, 50, **settings)

    monkeypatch.setattr(sweep, "measured", measured)
    assert bench.main(told) == 130
    assert len(json.loads(out.with_suffix(".json").read_text())["rows"]) == 2
    assert bench.main(told) == 0
    assert asked == ["1", "2", "3", "2", "3"]
    assert sweep.ONCE in capsys.readouterr().out
    assert sweep.ONCE in out.read_text()
    profile.write_text(profile.read_text() + "# edited\n")
    assert bench.main(told) == 1
    assert f"has figures of another version of {profile}: name another --out, or remove it" in capsys.readouterr().err


def test_figures_of_anything_else_are_refused_with_what_differs(tmp_path: Path) -> None:
    about = {"profile_sha256": "1", "machine": "2 cores", "vllm": "vllm 0.24"}
    load = {"profile": "p.yaml", "seconds": 30.0, "set": [], "slo": {"ttft": 1.0}}
    path = tmp_path / "x.json"

    def kept(**changed: Any) -> None:
        path.write_text(
            json.dumps({"measurement": "sweep", **about, "load": load, "rows": [{"figures": {}}]} | changed)
        )

    kept()
    assert earlier(path, load, about, "sweep") == [{"figures": {}}]
    kept(machine="8 cores, NVIDIA H100", vllm="vllm 0.23", load={**load, "seconds": 60.0, "set": ["a=1"]})
    with pytest.raises(Failed) as said:
        earlier(path, load, about, "sweep")
    assert str(said.value) == (
        f"{path} has figures of another load or machine (--seconds 30, there 60; --set none, there a=1; "
        "machine 2 cores, there 8 cores, NVIDIA H100; vllm vllm 0.24, there vllm 0.23): "
        "take the same again, name another --out, or remove it"
    )
    for text, words in (("[]", "is no figures of `launcher bench sweep`"), ("{", "cannot be read")):
        path.write_text(text)
        with pytest.raises(Failed, match=words):
            earlier(path, load, about, "sweep")
    kept(rows=[1])
    with pytest.raises(Failed, match="has no rows of figures"):
        earlier(path, load, about, "sweep")


def test_no_secret_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "x.html"
    monkeypatch.setattr(sweep, "measured", lambda _, settings: row(0.1, 50, **settings))
    told = ["--vary", "n=1", "--set", "engine.env.HF_TOKEN=hf_abc", "--out", str(out)]
    assert bench.main(["sweep", str(ROOT / "profiles" / "cpu-smollm2.yaml"), *told]) == 0
    assert "hf_abc" not in out.read_text() + out.with_suffix(".json").read_text()
    assert "HF_TOKEN" in out.read_text()
    assert not list(tmp_path.glob("*.part"))


def test_a_profile_that_starts_nothing_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    external = str(ROOT / "profiles" / "external.yaml")
    with pytest.raises(
        Failed, match=r"engine\.kind is external: there is no engine to start with other settings; name a"
    ):
        identity(external)
    out = ["--out", str(tmp_path / "x.html")]
    assert bench.main(["sweep", external, "--vary", "admission.max_in_flight=1", *out]) == 1
    assert bench.main(["tune", external, "--slo", "ttft=1s", *out]) == 1
    assert capsys.readouterr().err.count("engine.kind is external") == 2


def test_the_plans_remedy_is_for_the_terminal_and_the_sentence_for_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    slip, profile = ["engine.max_num_seq=4"], str(ROOT / "profiles" / "cpu-smollm2.yaml")
    with pytest.raises(Unplanned) as said:
        plan_of(profile, slip)
    assert str(said.value).endswith('did you mean "max_num_seqs"?')
    assert said.value.remedy.startswith("→ `launcher schema --keys`")
    assert (refused(profile, slip) or "").splitlines() == [str(said.value), said.value.remedy]
    assert in_full(SystemExit("`launcher up` failed:\nerror: no room\n→ less")) == "error: no room\n→ less"
    assert in_full(OSError("gone")) == "gone"
    monkeypatch.setattr(sweep, "refused", lambda *_: "no room\n→ less")
    chosen = sweep.options([profile, "--vary", "n=1"])
    assert sweep.measured(chosen, {"n": "1"}) == {
        "settings": {"n": "1"},
        "why": "not started: no room",
        "remedy": "→ less",
    }


def test_a_connection_that_breaks_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RemoteDisconnected("it hung up")

    monkeypatch.setattr(sweep, "refused", lambda *_: None)
    monkeypatch.setattr(sweep, "Deployment", broken)
    chosen = sweep.options(["p.yaml", "--vary", "n=1"])
    assert sweep.measured(chosen, {"n": "1"}) == {"settings": {"n": "1"}, "why": "it hung up"}


def test_measured_refused_by_the_plan_and_gone_on_with(
    fake_profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.html"
    told = [
        "sweep",
        str(fake_profile),
        "--users",
        "2",
        "--seconds",
        "2",
        "--scenario",
        "fixed",
        "--scale",
        "0.05",
        "--out",
        str(out),
    ]
    assert bench.main([*told, "--vary", "engine.kv_cache_memory=64MiB,1MiB"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:4]
    assert float(rows[0].split(" | ")[1]) > 0.01
    assert "not started: " in rows[1]
    monkeypatch.setattr(sweep, "Deployment", lambda *_: pytest.fail("it was measured before"))
    assert bench.main([*told, "--vary", "engine.kv_cache_memory=64MiB,1MiB"]) == 0
    assert capsys.readouterr().out.splitlines()[2:4] == rows
    assert bench.main([*told[:3], "3", *told[4:], "--vary", "engine.kv_cache_memory=64MiB"]) == 1
    assert "has figures of another load" in capsys.readouterr().err
