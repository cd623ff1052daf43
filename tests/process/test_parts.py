"""`launcher engine` and `launcher gateway` over fake engines: one ready word, engines that come and go, a polite end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from launcher.supervise.child import start_time
from tests.e2e.endpoint import ROOT, content, get, wait_for
from tests.process.deployment import write_profile
from tests.process.parts import free_pair, part, ready

COUNT = [{"role": "user", "content": "Count."}]


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    return write_profile(tmp_path)


def post(url: str, body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.loads(response.read() or b"null")


def chat(url: str, **changes: Any) -> Any:
    return post(f"{url}/v1/chat/completions", {"model": "smollm2", "messages": COUNT, **changes})


class Stream:
    """A streamed answer that is read on a thread of its own."""

    def __init__(self, url: str, tokens: int) -> None:
        body = {"model": "smollm2", "messages": COUNT, "stream": True, "max_tokens": tokens}
        self._request = urllib.request.Request(
            f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        self.text, self.is_whole = "", False
        self.begun = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with urllib.request.urlopen(self._request, timeout=60) as response:
            for line in response:
                if line.strip() == b"data: [DONE]":
                    self.is_whole = True
                elif line.startswith(b"data: "):
                    self.text += content(json.loads(line[6:]))
                    self.begun.set()

    def end(self) -> str:
        self._thread.join(60)
        assert self.is_whole
        return self.text


def test_an_engine_says_when_it_may_be_used(profile: Path, tmp_path: Path) -> None:
    flag = tmp_path / "ready"
    flag.touch()  # an earlier life's
    with part("engine", profile, tmp_path, "--ready-file", str(flag), FAKE_ENGINE='{"hold_after": 0}') as engine:
        wait_for("the warm-up", lambda: "warming up 1/1" in engine.said, 30)
        assert not flag.exists()  # vLLM's /health says 200 by now
        assert get(f"{engine.status_url}/ready") == (503, {"ready": False, "reason": "starting"})
        post(f"{engine.url}/_fake/set", {"hold_after": -1})
        post(f"{engine.url}/_fake/release", {})
        wait_for("ready", engine.is_ready, 30)
        assert flag.exists()
        assert get(f"{engine.status_url}/health")[0] == 404
        engine.stop()
        wait_for("its word that it stops", lambda: get(f"{engine.status_url}/ready")[1].get("reason") == "stopping", 10)
        assert not flag.exists()
        assert engine.ended() == 0
    assert engine.said.splitlines()[-1] == "stopped"
    assert engine.printed == ""


def test_a_killed_engine_is_started_again_and_a_hopeless_one_given_up(profile: Path, tmp_path: Path) -> None:
    with part("engine", profile, tmp_path) as engine:
        wait_for("ready", engine.is_ready, 30)
        for _ in range(3):  # restart.budget is 2
            pid = int(engine.said.rpartition(", pid ")[2].partition(",")[0])
            subprocess.run(["kill", "-9", str(pid)], check=True)
            wait_for("its end", lambda pid=pid: start_time(pid) is None, 10)
            wait_for("the next", lambda pid=pid: "pid" in engine.said.rpartition(f"pid {pid},")[2] or
                     engine.process.poll() is not None, 20)  # fmt: skip
            if engine.process.poll() is None:
                wait_for("ready again", lambda: engine.process.poll() is not None or engine.is_ready(), 20)
        assert engine.ended() == 5
    assert "error: engine 0 failed (3 times within 600 s, no restart left)" in engine.said


def test_engines_come_and_go_and_no_stream_is_lost(profile: Path, tmp_path: Path) -> None:
    """One engine, a second one, the first one replaced: what runs on it ends whole, what comes goes to the other."""
    first, second = free_pair(), free_pair()
    engines = f"http://127.0.0.1:{first},http://127.0.0.1:{second}"
    with part("gateway", profile, tmp_path / "g", "--engines", engines) as gateway:
        with part("engine", profile, tmp_path / "1", port=first, FAKE_ENGINE='{"hold_after": 5}') as old:
            # the warm-up is held too
            wait_for("the warm-up", lambda: "warming up 1/1" in old.said, 30)
            post(f"{old.url}/_fake/release", {})
            ready(gateway, 1)
            stream = Stream(gateway.url, 40)
            assert stream.begun.wait(20)
            with part("engine", profile, tmp_path / "2", port=second):
                ready(gateway, 2)
                old.stop()
                ready(gateway, 1)  # by the old one's word, while it still serves
                assert old.process.poll() is None
                assert len(chat(gateway.url, max_tokens=3)["choices"][0]["message"]["content"].split()) == 3
                post(f"{old.url}/_fake/release", {})
                assert len(stream.end().split()) == 40
                assert old.ended() == 0
                with part("engine", profile, tmp_path / "1", port=first):
                    ready(gateway, 2)
        gateway.stop()
        assert gateway.ended() == 0
    lines = [json.loads(line) for line in gateway.printed.splitlines()]  # requests, and nothing else
    assert [line["status"] for line in lines if line["path"].startswith("/v1")] == [200, 200]


def test_the_key_of_the_engines(profile: Path, tmp_path: Path) -> None:
    with part("engine", profile, tmp_path / "e", LAUNCHER_ENGINE_KEY="s3cret") as engine:
        wait_for("ready", engine.is_ready, 30)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            chat(engine.url)
        with part("gateway", profile, tmp_path / "g", "--engines", engine.url, LAUNCHER_ENGINE_KEY="s3cret") as gateway:
            ready(gateway, 1)
            assert chat(gateway.url)["choices"]
        assert "s3cret" not in engine.said + gateway.said + gateway.printed


def test_a_name_that_is_behind_nothing(profile: Path, tmp_path: Path) -> None:
    engines = "dns+http://nowhere.invalid:8000"
    with part("gateway", profile, tmp_path, "--engines", engines) as gateway:
        wait_for("the gateway", lambda: get(f"{gateway.url}/health")[0] == 200, 30)
        status, body = get(f"{gateway.url}/ready")
        assert (status, body["replicas"]) == (503, [])
        with pytest.raises(urllib.error.HTTPError, match="503") as refused:
            chat(gateway.url)
        assert refused.value.headers["Retry-After"]


def run(*arguments: str) -> tuple[int, str]:
    argv = [sys.executable, "-m", "launcher", *arguments]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("engine", "profiles/external.yaml"), 3, "engine.kind is external: there is no engine to start"),
        (("engine", "profiles/cpu-smollm2.yaml", "--listen", "8000"), 2, "'8000' is not an address: write host:port"),
        (("engine", "profiles/cpu-smollm2.yaml", "--notice", "soon"), 2, "soon"),
        (("gateway", "profiles/cpu-smollm2.yaml"), 2, "--engines is missing: where do this profile's engines run?"),
        (("gateway", "profiles/external.yaml", "--engines", "http://h:1"), 2, "leave --engines out"),
        (("gateway", "profiles/cpu-smollm2.yaml", "--engines", "h:1"), 2, "'h:1' is not a server's base URL"),
        (("gateway", "profiles/cpu-smollm2.yaml", "--engines", "dns+http://a/b"), 2, "is not a name with a port"),
        (("gateway", "profiles/external.yaml", "--peers", "http://x"), 3, "is not the name of a host"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(arguments: tuple[str, ...], code: int, sentence: str) -> None:
    returned, said = run(*arguments)
    assert (returned, sentence in " ".join(said.split())) == (code, True), said


def test_a_taken_status_port(profile: Path, tmp_path: Path) -> None:
    port = free_pair()
    with part("engine", profile, tmp_path, port=port) as engine:
        wait_for("ready", engine.is_ready, 30)
        with part("engine", profile, tmp_path, port=port) as second:
            assert second.ended() == 4
        assert f"error: --listen: 127.0.0.1:{port}: the port is in use" in second.said


def test_a_second_signal_ends_at_once(profile: Path, tmp_path: Path) -> None:
    with part("engine", profile, tmp_path, FAKE_ENGINE='{"ignore_sigterm": true}') as engine:
        wait_for("ready", engine.is_ready, 30)
        engine.stop()
        wait_for("the first", lambda: "stopping: running requests finish" in engine.said, 10)
        engine.process.send_signal(signal.SIGINT)
        assert engine.ended(15) == 130
