"""Run directories: one launcher a name, nothing left of a killed one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.errors import PreconditionError
from launcher.supervise.child import start_time
from launcher.supervise.rundir import RunDir, find_all, is_locked, wait_unlocked


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAUNCHER_STATE_DIR", str(tmp_path))
    return tmp_path


def test_a_name_is_taken_once() -> None:
    first = RunDir.claim("a")
    first.write({"pid": 4711, "url": "http://127.0.0.1:8000"})
    with pytest.raises(PreconditionError) as caught:
        RunDir.claim("a")
    assert caught.value.message == "'a' is already running (pid 4711, http://127.0.0.1:8000)"
    assert "launcher down a" in caught.value.hint
    assert [one.name for one in find_all() if one.alive] == ["a"]
    first.release()
    again = RunDir.claim("a")
    assert again.stale_pid is None
    again.release()
    assert find_all() == []
    assert [one.name for one in find_all(ended_too=True)] == ["a"]


def test_only_this_user_may_enter(state_dir: Path) -> None:
    (state_dir / "a").mkdir(mode=0o755)  # as `up -d` makes it for its log
    RunDir.claim("a").release()
    assert (state_dir / "a").stat().st_mode & 0o777 == 0o700


def test_what_a_killed_launcher_left_is_ended(state_dir: Path) -> None:
    left = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
    stale = RunDir.claim("a")
    stale.write({"pid": 1, "state": "ready", "engines": [{"pid": left.pid, "pid_started": start_time(left.pid)}]})
    os.close(stale._lock)  # as the kernel does when a launcher is killed
    assert [(one.name, one.alive) for one in find_all()] == [("a", False)]
    claimed = RunDir.claim("a")
    assert (claimed.stale_pid, claimed.cleaned) == (1, (left.pid,))
    assert left.wait(10) == -9


def test_a_reused_pid_is_left_alone(state_dir: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
    stale = RunDir.claim("a")
    stale.write({"pid": 1, "state": "ready", "engines": [{"pid": stranger.pid, "pid_started": 12345}]})
    os.close(stale._lock)
    try:
        assert RunDir.claim("a").cleaned == ()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_half_a_record_is_no_record(state_dir: Path) -> None:
    (state_dir / "a").mkdir()
    (state_dir / "a" / "state.json").write_text('{"pid": 1')
    assert find_all() == []
    RunDir.claim("a").release()


def test_waiting_for_the_holder(state_dir: Path) -> None:
    held = RunDir.claim("a")
    assert is_locked(held.path)
    assert not wait_unlocked(held.path, 0.05)
    held.release()
    assert wait_unlocked(held.path, 5)


def test_a_folder_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LAUNCHER_STATE_DIR", str(tmp_path / "file"))
    with pytest.raises(PreconditionError, match="cannot be used as run directory: Not a directory"):
        RunDir.claim("a")


def test_prometheus_is_told_where_the_engines_listen(state_dir: Path) -> None:
    told = state_dir / "a" / "prometheus.json"
    rundir = RunDir.claim("a")
    engines = [{"index": 0, "url": "http://127.0.0.1:40001"}, {"index": 1, "url": ""}]
    rundir.write({"state": "starting", "engines": engines})
    written = told.stat().st_mtime_ns
    assert json.loads(told.read_text()) == [{"targets": ["127.0.0.1:40001"], "labels": {"instance": "a/0"}}]
    rundir.write({"state": "ready", "engines": engines})  # Prometheus reads it again whenever it is replaced
    assert told.stat().st_mtime_ns == written
    engines[0]["url"] = "http://127.0.0.1:40002"
    rundir.write({"state": "ready", "engines": engines})
    assert json.loads(told.read_text())[0]["targets"] == ["127.0.0.1:40002"]
    rundir.release()
    assert not told.exists()
