"""Plans against starts: what is read from a log, what the table says, and a run over fake engines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launcher.engine.causes import CAUSES
from launcher.engine.crashes import CRASHES
from launcher.probe.gpus import GpuUse
from launcher.profile.load import load_profile
from launcher.profile.units import GIB
from loadtests import resumed, starts, starts_engine
from loadtests.deployment import ROOT
from loadtests.starts import chosen_of, main, read_settings
from loadtests.starts_engine import Seen, wait_for_memory, why_not
from loadtests.starts_table import ENDED, FORETOLD, STARTED, TIMED_OUT, error_percent, is_right, table

LOG = (
    "(EngineCore pid=7) INFO 11-21 20:22:50 [gpu_model_runner.py:4820] Model loading took 19.26 GiB memory and 3.1 seconds",
    "(EngineCore pid=7) INFO 11-21 20:22:53 [gpu_worker.py:509] Available KV cache memory: 44.90 GiB",
    "(EngineCore pid=7) INFO 11-21 20:22:53 [kv_cache_utils.py:2146] GPU KV cache size: 1,177,040 tokens",
    "(EngineCore pid=7) INFO 11-21 20:22:53 [x.py:1] Maximum concurrency for 8,192 tokens per request: 143.68x",
)
UP = "(EngineCore pid=7) INFO 11-21 20:22:57 [core.py:402] init engine (profile, create kv cache, warmup model) took 17.65 seconds"
OUT_OF_MEMORY = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.75 GiB. GPU 0 has a total capacity of 79.10 GiB"
)


def row(**changed: Any) -> dict[str, Any]:
    usual = {
        "verdict": "fits",
        "errors": [],
        "kv_bytes": 45 * GIB,
        "kv_is_given": False,
        "card": "NVIDIA H100 80GB HBM3",
    }
    return usual | {"vllm": "vllm 0.24.0", "outcome": STARTED, "seconds": 31.2, "facts": {"kv_gib": 44.9}} | changed


REFUSED = row(
    verdict="does_not_fit",
    errors=["no-room-for-kv"],
    kv_bytes=-2 * GIB,
    outcome=ENDED,
    facts={},
    why="no memory is left",
    diagnosis="no-kv",
)


def test_the_log_is_read_until_all_is_allocated() -> None:
    """Memory can still run out after the size of the KV cache is told."""
    seen, lines = Seen(), iter([*LOG, UP, "Starting vLLM server"])
    assert seen.read(lines)
    assert seen.facts == {
        "weights_gib": 19.26, "load_s": 3.1, "kv_gib": 44.9, "kv_tokens": 1177040, "max_concurrency": 143.68, "start_s": 17.65,
    }  # fmt: skip
    assert list(lines) == ["Starting vLLM server"]
    assert not Seen().read([*LOG, OUT_OF_MEMORY])


def test_an_engine_that_says_nothing_of_its_start_is_up_when_it_serves() -> None:
    assert Seen().read([*LOG, "INFO:     Application startup complete."])


def test_why_a_start_failed_is_the_launchers_own_diagnosis(tmp_path: Path) -> None:
    profile = load_profile(ROOT / "profiles" / "1xh200.yaml").profile
    found = why_not(profile, [*LOG, OUT_OF_MEMORY], 1)
    assert (found["outcome"], found["evidence"]) == (ENDED, [OUT_OF_MEMORY])
    assert "memory" in found["why"]
    assert why_not(profile, [], -9)["diagnosis"] == "sigkill"
    why = f"neither ready nor ended within {profile.timeouts.start:g} s: allow more with timeouts.start"
    assert why_not(profile, LOG, None) == {"outcome": TIMED_OUT, "why": why}


def test_a_verdict_is_right_or_wrong_or_not_to_be_told() -> None:
    assert is_right(row())
    assert is_right(REFUSED)
    assert is_right(row(outcome=ENDED, diagnosis="kv-too-small")) is False
    for unrelated in ("no-kernel", "port", "unknown", "sigkill"):
        assert is_right(REFUSED | {"diagnosis": unrelated}) is None
        assert is_right(row(outcome=ENDED, diagnosis=unrelated)) is None
    assert {cause.name for cause in (*CAUSES, *CRASHES)} >= FORETOLD
    assert is_right(REFUSED | {"outcome": STARTED}) is False
    assert is_right(row(verdict="unknown")) is None
    assert is_right(row(outcome=TIMED_OUT)) is None


def test_the_error_has_a_sign_and_is_none_of_what_was_given_outright() -> None:
    assert error_percent(row()) == pytest.approx(0.2227, abs=0.001)
    assert error_percent(row(kv_bytes=44 * GIB)) == pytest.approx(-2.0045, abs=0.001)
    assert error_percent(row(kv_is_given=True)) is None
    assert error_percent(REFUSED) is None


def test_the_table() -> None:
    found = table(
        {
            "as it is": row(),
            "less": row(kv_bytes=44 * GIB, outcome=STARTED),
            "weights": REFUSED,
            "too much": row(outcome=ENDED, why="out of | memory", diagnosis="cuda-memory"),
            "broken": row(outcome=ENDED, why="a kernel is missing", diagnosis="no-kernel"),
            "given": row(kv_is_given=True),
            "cut off": {"sets": []},
        }
    )
    assert found.splitlines()[2:] == [
        "| as it is | fits | started, 31 s | 45.00 | 44.90 | +0.22 |",
        "| less | fits | started, 31 s | 44.00 | 44.90 | -2.00 |",
        "| weights | does not fit (no-room-for-kv) | no memory is left | -2.00 | – | – |",
        "| too much | **wrong:** fits | out of \\| memory | 45.00 | 44.90 | +0.22 |",
        "| broken | undecided: fits | a kernel is missing | 45.00 | 44.90 | +0.22 |",
        "| given | fits | started, 31 s | 45.00 | 44.90 | given |",
        "",
        "Right verdicts: 4 of 5. Undecided: broken.",
        "KV cache of 2 starts, predicted against real: mean absolute error 1.11 %, mean -0.89 %, largest -2.00 % (less).",
        "vllm 0.24.0 on NVIDIA H100 80GB HBM3.",
    ]


def test_memory_that_is_not_given_back_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    used = lambda gib: [GpuUse(0, "NVIDIA H100 80GB HBM3", round(gib * GIB), 80 * GIB, 0)]  # noqa: E731
    monkeypatch.setattr(starts_engine, "GIVEN_BACK_S", 0.0)
    monkeypatch.setattr(starts_engine, "gpu_use", lambda: used(0.05))
    wait_for_memory(used(0.0))
    monkeypatch.setattr(starts_engine, "gpu_use", lambda: used(3.0))
    with pytest.raises(ValueError, match=r"card 0 holds 3\.00 GiB more than before the start, 0 s after its end"):
        wait_for_memory(used(0.0))


def test_a_process_that_cannot_be_killed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts_engine, "KILLED_S", 0.0)
    monkeypatch.setattr(starts_engine, "kill_session", lambda _: [7, 8])
    with subprocess.Popen(["true"], text=True) as process, pytest.raises(ValueError, match="7, 8") as said:
        starts_engine.end(process)
    assert str(said.value).startswith(
        "process 7, 8 of the engine is still there 0 s after SIGKILL: it waits in the kernel"
    )
    assert "restart the machine" in str(said.value)


def test_settings_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("long: model.max_len=65536\n")
    with pytest.raises(ValueError, match=r"long: is no list of KEY=VALUE, such as \[model\.max_len=65536\]"):
        read_settings(path)
    path.write_text("- long\n")
    with pytest.raises(ValueError, match="is no mapping of names to lists"):
        read_settings(path)
    with pytest.raises(ValueError, match=r"--only: there is no setting longer \(there are: long\)"):
        chosen_of({"long": ()}, "long,longer")


def test_the_shipped_settings_can_be_planned() -> None:
    """Each is a change that a profile takes."""
    settings = read_settings(ROOT / "loadtests" / "starts-glm.yaml")
    assert len(settings) >= 14
    for name, sets in settings.items():
        found = starts.make_case(ROOT / "profiles" / "1xh200.yaml", name, sets).predicted()
        assert found["verdict"] in ("fits", "does_not_fit"), name


@pytest.fixture
def run(fake_profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command over fake engines; ``behaviour`` is theirs. Returns what is in --out."""
    settings, out = tmp_path / "settings.yaml", tmp_path / "new" / "starts.json"

    def go(text: str, *told: str, **behaviour: Any) -> dict[str, Any]:
        settings.write_text(text)
        monkeypatch.setenv("FAKE_ENGINE", json.dumps(behaviour))
        monkeypatch.setattr(sys, "argv", ["starts", str(fake_profile), str(settings), "--out", str(out), *told])
        main()
        found: dict[str, Any] = json.loads(out.read_text())["starts"]
        return found

    return go


def test_a_run_goes_on_where_it_was(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table_file = tmp_path / "starts.md"
    first = run("one: []\ntwo: [model.max_len=4096]\n", "--only", "one", "--markdown", str(table_file))
    assert list(first) == ["one"]
    assert first["one"]["outcome"] == STARTED
    assert first["one"]["facts"]["kv_gib"] == 1.0
    assert "Available KV cache memory" in (tmp_path / "new" / "starts.logs" / "one.log").read_text()
    assert table_file.read_text() in capsys.readouterr().out
    then = run("one: []\ntwo: [model.max_len=4096]\n", start_exit=3)
    assert then["one"] == first["one"]
    assert then["two"]["outcome"] == ENDED
    assert then["two"]["why"] == "the engine ended with exit code 3 and its log names no reason"
    changed = run("one: [model.max_len=2048]\n", start_exit=3)  # another start under the same name
    assert changed["one"]["outcome"] == ENDED


def test_a_slip_is_said_before_anything_is_started(run: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as said:
        run("one: []\ntwo: [model.max_lenght=4096]\n")
    assert "max_len" in str(said.value)
    assert not (tmp_path / "new" / "starts.json").exists()


def test_starts_of_another_profile_or_machine_are_not_mixed_in(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("one: []\n")
    profile, out = tmp_path / "fake.yaml", tmp_path / "new" / "starts.json"
    before = profile.read_text()
    profile.write_text(before + "# edited\n")
    with pytest.raises(
        SystemExit, match=r"has figures of another version of .*fake\.yaml: name another --out, or remove it"
    ):
        run("one: []\n")
    profile.write_text(before)
    monkeypatch.setattr(resumed, "machine", lambda: "8 cores, NVIDIA H100")
    with pytest.raises(
        SystemExit, match=r"machine 8 cores, NVIDIA H100, there .*: take the same again, name another --out"
    ):
        run("one: []\n")
    for text in ("{}", '{"starts": {}}', '{"measurement": "sweep", "load": {}}'):
        out.write_text(text)
        with pytest.raises(SystemExit, match=r"is no figures of `python -m loadtests\.starts`: name another --out"):
            run("one: []\n")


def test_what_was_measured_is_shown_whatever_ended_it(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def held(_: object) -> None:
        raise ValueError("card 0 holds 3 GiB more")

    monkeypatch.setattr(starts, "wait_for_memory", held)
    with pytest.raises(SystemExit, match="card 0 holds 3 GiB more"):
        run("one: []\ntwo: []\n")
    assert "| one | fits | started" in capsys.readouterr().out


def test_there_is_room_for_the_table_before_anything_is_started(run: Any, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(SystemExit, match=r"--markdown: .*folder is a folder; name a file in it"):
        run("one: []\n", "--markdown", str(tmp_path / "folder"))
    assert not (tmp_path / "new" / "starts.json").exists()


def test_an_engine_that_says_nothing_has_as_long_as_the_profile_allows(run: Any, tmp_path: Path) -> None:
    found = run("slow: [timeouts.start=2s]\n", start_delay_s=30)["slow"]
    assert found["outcome"] == TIMED_OUT
    assert found["why"] == "neither ready nor ended within 2 s: allow more with timeouts.start"
    assert found["seconds"] < 20
