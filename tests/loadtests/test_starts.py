"""Plans against starts: what is read from a log, what the table says, and a run over fake engines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from launcher.probe.gpus import GpuUse
from launcher.profile.load import load_profile
from launcher.profile.units import GIB
from loadtests import starts, starts_engine
from loadtests.deployment import ROOT
from loadtests.starts import chosen_of, main, read_settings
from loadtests.starts_engine import Seen, wait_for_memory, why_not
from loadtests.starts_table import ENDED, STARTED, TIMED_OUT, error_percent, is_right, table
from tests.process.deployment import CONFIG, FAKE_PYTHON, PROFILE

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
    assert why_not(profile, LOG, None) == {"outcome": TIMED_OUT, "why": "neither ready nor ended within 240 s"}


def test_a_verdict_is_right_or_wrong_or_not_to_be_told() -> None:
    assert is_right(row())
    assert is_right(REFUSED)
    assert is_right(row(outcome=ENDED)) is False
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
            "broken": row(outcome=ENDED, why="a kernel | is missing"),
            "given": row(kv_is_given=True),
            "cut off": {"sets": []},
        }
    )
    assert found.splitlines()[2:] == [
        "| as it is | fits | started, 31 s | 45.00 | 44.90 | +0.22 |",
        "| less | fits | started, 31 s | 44.00 | 44.90 | -2.00 |",
        "| weights | does not fit (no-room-for-kv) | no memory is left | -2.00 | – | – |",
        "| broken | **wrong:** fits | a kernel \\| is missing | 45.00 | 44.90 | +0.22 |",
        "| given | fits | started, 31 s | 45.00 | 44.90 | given |",
        "",
        "Right verdicts: 4 of 5.",
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
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command over fake engines; ``behaviour`` is theirs. Returns what is in --out."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    profile, settings, out = tmp_path / "fake.yaml", tmp_path / "settings.yaml", tmp_path / "new" / "starts.json"
    profile.write_text(PROFILE.format(python=FAKE_PYTHON, replicas=1))
    monkeypatch.setenv("FAKE_ENGINE_PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def go(text: str, *told: str, **behaviour: Any) -> dict[str, Any]:
        settings.write_text(text)
        monkeypatch.setenv("FAKE_ENGINE", json.dumps(behaviour))
        monkeypatch.setattr(sys, "argv", ["starts", str(profile), str(settings), "--out", str(out), *told])
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
