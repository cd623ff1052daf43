"""A profile started for a measurement: it ends whenever it is stopped, and engines that are gone are said so."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from loadtests import deployment as deployments
from loadtests.deployment import Deployment, started_with, stoppable
from loadtests.failures import Failed
from tests.process.deployment import write_profile


@pytest.fixture
def profile(fake_engines: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of two fake engines; what a failure leaves of them is ended."""
    states: list[str] = []
    made = deployments.tempfile.mkdtemp

    def noted(**more: str) -> str:
        states.append(made(**more))
        return states[-1]

    monkeypatch.setattr(deployments.tempfile, "mkdtemp", noted)
    yield write_profile(tmp_path, replicas=2)
    for state in states:
        for pid in started_with(state):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(state, ignore_errors=True)


def test_who_is_stopped_before_the_name_is_claimed_leaves_nothing(profile: Path) -> None:
    """The background launcher has just been started, and `launcher down` knows nothing of it yet."""
    one = Deployment(str(profile), [])

    def stop() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if (
                one._state
                and Path(one._state, "overload", "logs", "up.log").exists()
                and len(started_with(one._state)) > 1
            ):
                break
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with stoppable(), pytest.raises(KeyboardInterrupt):
        one.__enter__()
    thread.join()
    assert started_with(one._state) == []
    assert not Path(one._state).exists()


def test_what_cannot_be_stopped_can_still_be_found(
    profile: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(deployments, "STOP_WITHIN_S", 0.0)
    monkeypatch.setattr(deployments, "started_with", lambda _: [1])
    with pytest.raises(SystemExit, match="`launcher up` failed"):
        Deployment(str(profile.with_name("nowhere.yaml")), []).__enter__()
    found = re.search(
        "overload could not be stopped: LAUNCHER_STATE_DIR=(.*) launcher down overload", capsys.readouterr().err
    )
    assert found
    assert Path(found[1]).is_dir()


def test_a_start_that_fails_is_not_waited_for(profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployments.time, "sleep", lambda _: pytest.fail("there is nothing to wait for"))
    one = Deployment(str(profile), ["engine.kv_cache_memory=1B"])
    with pytest.raises(SystemExit, match="`launcher up` failed"):
        one.__enter__()
    assert not Path(one._state).exists()


def test_all_engines_are_known_and_waited_for(profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Deployment(str(profile), ["engine.env.HF_TOKEN=s3cret"]) as one:
        assert len(set(one.engines)) == 2
        assert one.engine == one.engines[0]
        one.until_idle()
    assert "with engine.env.HF_TOKEN=…" in capsys.readouterr().err
    assert started_with(one._state) == []


def test_none_is_idle_before_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Deployment("", [])
    one.engines = ["a", "b"]
    at_work = iter([0.0, 1.0, 0.0, 0.0])
    asked: list[str] = []

    def in_hand(engine: str) -> float:
        asked.append(engine)
        return next(at_work)

    monkeypatch.setattr(deployments, "in_hand", in_hand)
    one.until_idle()
    assert asked == ["a", "b", "a", "b"]


@pytest.mark.parametrize("said", [b"", b"no HTTP\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
def test_an_engine_that_is_gone_is_said(said: bytes) -> None:
    """It dies before it answers, or while it does."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        one = Deployment("", [])
        one.engines = [f"http://127.0.0.1:{server.getsockname()[1]}"]
        with pytest.raises(Failed, match=f"the engine at {one.engine} could not be asked whether it works: ."):
            one.until_idle()
        thread.join()
    with pytest.raises(Failed, match="Connection refused"):
        one.until_idle()
