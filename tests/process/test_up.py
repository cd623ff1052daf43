"""`up`, `ps`, `logs` and `down` as a user meets them, over fake engines: what is said, where, and with which exit code."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.supervise.child import start_time
from tests.e2e.endpoint import ROOT, content, get, metric, wait_for
from tests.fakes.process import fake_engine
from tests.process.deployment import FAKE_PYTHON, FakeEndpoint


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[FakeEndpoint]:
    one = FakeEndpoint(tmp_path)
    yield one
    one.down("--now")


COUNT = [{"role": "user", "content": "Count."}]  # the fake engine answers w0 w1 …, as many as it may


def start(endpoint: FakeEndpoint, *options: str) -> None:
    result = endpoint.launcher("up", str(endpoint.profile), "-d", "--wait", *options)
    assert result.returncode == 0, result.stderr


def test_detached_ps_logs_down(endpoint: FakeEndpoint) -> None:
    result = endpoint.launcher("up", str(endpoint.profile), "-d", "--wait")
    assert result.returncode == 0, result.stderr
    assert re.search(r"engine: ready after \d+ s", result.stderr)
    assert "curl http://127.0.0.1:" in result.stdout
    table = endpoint.launcher("ps").stdout.splitlines()
    assert table[0].split()[:4] == ["NAME", "STATE", "URL", "ENGINE"]
    assert table[1].split()[:2] == ["fake", "ready"]
    logs = endpoint.launcher("logs", "fake", "-n", "500").stdout
    assert "engine-0 | " in logs
    assert "launcher | " in logs
    engine = endpoint.engine()
    assert endpoint.down().returncode == 0
    assert start_time(engine["pid"]) is None
    assert endpoint.launcher("ps").stdout == ""
    assert "engine-0 | " in endpoint.launcher("logs", "fake").stdout  # also after the end


def test_detached_without_wait_returns_while_it_starts(endpoint: FakeEndpoint) -> None:
    endpoint.behave(start_delay_s=60)
    result = endpoint.launcher("up", str(endpoint.profile), "-d")
    assert result.returncode == 0, result.stderr
    assert "fake is starting in the background on http://127.0.0.1:" in result.stderr
    url = endpoint.url
    assert get(f"{url}/health")[0] == 200
    status, ready = get(f"{url}/ready")
    assert (status, ready["ready"]) == (503, False)


def test_wait_that_takes_too_long(endpoint: FakeEndpoint) -> None:
    endpoint.behave(start_delay_s=60)
    result = endpoint.launcher("up", str(endpoint.profile), "-d", "--wait", "--timeout", "3s")
    assert result.returncode == 6
    assert "fake was not ready within 3 s; it goes on in the background" in result.stderr
    assert endpoint.record()["state"] == "starting"


def test_a_second_up_of_the_same_name(endpoint: FakeEndpoint) -> None:
    start(endpoint)
    second = endpoint.launcher("up", str(endpoint.profile))
    assert second.returncode == 4
    assert f"'fake' is already running (pid {endpoint.record()['pid']}, {endpoint.url})" in second.stderr
    assert "launcher down fake" in second.stderr


def test_an_engine_that_will_not_start(endpoint: FakeEndpoint) -> None:
    endpoint.behave(start_exit=3)
    result = endpoint.launcher("up", str(endpoint.profile), "-d", "--wait")
    assert result.returncode == 5
    assert "engine 0 failed (3 times within 600 s, no restart left)" in result.stderr
    assert "engine-0.log" in result.stderr
    assert endpoint.record() == {}


def test_the_launcher_killed_is_seen_and_cleaned_up(endpoint: FakeEndpoint) -> None:
    start(endpoint)
    engine = endpoint.engine()
    os.kill(endpoint.record()["pid"], signal.SIGKILL)
    wait_for("the engine's end", lambda: start_time(engine["pid"]) is None, within_s=20)
    assert "its launcher was killed" in endpoint.launcher("ps").stdout
    again = endpoint.launcher("up", str(endpoint.profile), "-d", "--wait")
    assert "was killed: took over its run directory, ended 0 processes that it left" in again.stderr
    assert endpoint.record()["state"] == "ready"


def test_two_replicas_one_killed_and_back(tmp_path: Path) -> None:
    endpoint = FakeEndpoint(tmp_path, replicas=2)
    start(endpoint)
    try:
        url, pids = endpoint.url, [engine["pid"] for engine in endpoint.record()["engines"]]
        os.kill(pids[0], signal.SIGKILL)
        wait_for("the restart", lambda: endpoint.record()["engines"][0]["restarts"] == 1)
        wait_for("ready", lambda: endpoint.record()["state"] == "ready")
        assert endpoint.record()["engines"][1]["pid"] == pids[1]
        with urllib.request.urlopen(endpoint.chat(url), timeout=20) as response:
            assert "Paris" in json.load(response)["choices"][0]["message"]["content"]
    finally:
        endpoint.down("--now")


def test_down_lets_a_stream_finish_and_refuses_new_requests(endpoint: FakeEndpoint) -> None:
    endpoint.behave(hold_after=50)
    start(endpoint)
    url, engine = endpoint.url, endpoint.engine()["url"]
    events = endpoint.stream(url, max_tokens=100, messages=COUNT)
    text = content(next(events))
    stopping = threading.Thread(target=endpoint.down)
    stopping.start()
    wait_for("draining", lambda: get(f"{url}/ready")[0] == 503)
    with pytest.raises(urllib.error.HTTPError, match="503") as refused:
        urllib.request.urlopen(endpoint.chat(url), timeout=20)
    assert json.load(refused.value)["error"]["src"] == "gateway"
    urllib.request.urlopen(f"{engine}/_fake/release", data=b"{}", timeout=20).close()
    text += "".join(map(content, events))
    stopping.join()
    assert len(text.split()) == 100
    assert endpoint.record() == {}


def test_down_now_does_not_wait(endpoint: FakeEndpoint) -> None:
    endpoint.behave(hold_after=100)
    start(endpoint)
    stream = urllib.request.urlopen(
        endpoint.chat(endpoint.url, stream=True, max_tokens=200, messages=COUNT), timeout=20
    )
    stream.readline()
    assert endpoint.down("--now").returncode == 0
    assert endpoint.record() == {}


def test_down_while_it_is_still_preparing(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    """The model's conversion or download can be long: here, asking a Python that never answers for its vLLM."""
    slow = tmp_path / "slow-python"
    slow.write_text("#!/bin/sh\nexec sleep 25\n")
    slow.chmod(0o755)
    endpoint.profile.write_text(endpoint.profile.read_text().replace(str(FAKE_PYTHON), str(slow)))
    process = foreground(endpoint, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for("preparing", lambda: endpoint.record()["state"] == "preparing")
    assert endpoint.down().returncode == 0
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert endpoint.record() == {}


def foreground(endpoint: FakeEndpoint, **streams: int) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "launcher", "up", str(endpoint.profile)]
    return subprocess.Popen(argv, env=endpoint.environment, cwd=ROOT, text=True, start_new_session=True, **streams)


def test_foreground_without_a_terminal_prints_plain_lines(endpoint: FakeEndpoint) -> None:
    process = foreground(endpoint, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for("ready", lambda: endpoint.record()["state"] == "ready")
    os.kill(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 0
    assert stdout.startswith("\nReady: http://127.0.0.1:")
    assert "\x1b" not in stdout + stderr
    assert stderr.splitlines()[-1] == "stopped"


def test_a_reader_that_leaves_ends_nothing(endpoint: FakeEndpoint) -> None:
    """`launcher up 2>&1 | head`, or a terminal that is closed: it serves on, restarts its engine, and drains."""
    endpoint.behave(hold_after=30)
    process = foreground(endpoint, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for("ready", lambda: endpoint.record()["state"] == "ready")
    assert process.stderr is not None
    process.stderr.close()
    os.kill(endpoint.engine()["pid"], signal.SIGKILL)
    wait_for("ready again", lambda: endpoint.engine()["restarts"] == 1 and endpoint.record()["state"] == "ready", 30)
    request = endpoint.chat(endpoint.url, stream=True, max_tokens=40, messages=COUNT)
    with urllib.request.urlopen(request, timeout=20) as stream:
        stream.readline()
        os.kill(process.pid, signal.SIGHUP)  # as the kernel does when the terminal goes
        wait_for("draining", lambda: endpoint.record()["state"] == "draining", 30)
        urllib.request.urlopen(endpoint.engine()["url"] + "/_fake/release?count=1", b"{}", timeout=20).close()
        assert "w39" in stream.read().decode()
    process.wait(30)


def test_a_record_that_cannot_be_written_ends_nothing(endpoint: FakeEndpoint) -> None:
    """As on a disk that is full."""
    start(endpoint)
    url, engine = endpoint.url, endpoint.engine()
    (obstacle := endpoint.state_dir / "fake" / "state.json.partial").mkdir()
    os.kill(engine["pid"], signal.SIGKILL)

    def is_ready() -> bool:
        status, body = get(f"{url}/ready")
        return status == 200 and body["replicas"][0]["in_flight"] == 0

    wait_for("down", lambda: not is_ready(), 30)
    wait_for("ready again", is_ready, 30)
    obstacle.rmdir()


def test_a_second_ctrl_c_stops_at_once(endpoint: FakeEndpoint) -> None:
    endpoint.behave(hold_after=100)
    process = foreground(endpoint, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for("ready", lambda: endpoint.record()["state"] == "ready")
    engine = endpoint.engine()
    stream = urllib.request.urlopen(
        endpoint.chat(endpoint.url, stream=True, max_tokens=200, messages=COUNT), timeout=20
    )
    stream.readline()
    os.kill(process.pid, signal.SIGINT)
    wait_for("draining", lambda: endpoint.record()["state"] == "draining")
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "1 requests were still running and are cut off" in stderr
    assert start_time(engine["pid"]) is None


def test_a_terminal_gets_a_status_line(endpoint: FakeEndpoint) -> None:
    ours, theirs = pty.openpty()
    endpoint.environment |= {"TERM": "xterm", "COLUMNS": "200"}
    process = foreground(endpoint, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while b"Ready: http://127.0.0.1:" not in shown or b"ready \xc2\xb7 engine 0 ready" not in shown:
        shown += os.read(ours, 4096)
    assert b"in flight 0 \xc2\xb7 queued 0" in shown
    os.kill(process.pid, signal.SIGINT)
    process.wait(30)
    os.close(ours)
    assert process.returncode == 0


def test_external_servers_are_watched_not_started(tmp_path: Path) -> None:
    endpoint = FakeEndpoint(tmp_path)
    profile = endpoint.profile.read_text()
    endpoint.profile.write_text(profile.replace("replicas: 1}", "replicas: 1, env: {VLLM_API_KEY: the-engines-key}}"))
    start(endpoint)
    server = endpoint.engine()["url"]
    outside = FakeEndpoint(tmp_path_below(tmp_path, "outside"))
    outside.environment["BACKEND_KEY"] = "the-engines-key"
    outside.profile.write_text(
        f'name: fake\nengine: {{kind: external, urls: ["{server}"], api_key_env: BACKEND_KEY}}\n'
        'gateway: {listen: "127.0.0.1:0"}\ntimeouts: {probe_interval: 200ms}\n'
    )
    try:
        start(outside)
        with urllib.request.urlopen(outside.chat(outside.url), timeout=20) as response:
            assert "Paris" in json.load(response)["choices"][0]["message"]["content"]
        endpoint.down("--now")
        wait_for("the loss seen", lambda: outside.record()["engines"][0]["phase"] == "down")
        assert get(f"{outside.url}/ready")[0] == 503
    finally:
        outside.down("--now")
        endpoint.down("--now")


def test_an_external_server_is_warmed_and_taken_out_while_it_hangs(tmp_path: Path) -> None:
    outside = FakeEndpoint(tmp_path)
    with fake_engine() as server:
        outside.profile.write_text(
            f'name: fake\nmodel: {{served_name: fake-model}}\nengine: {{kind: external, urls: ["{server.url}"]}}\n'
            'gateway: {listen: "127.0.0.1:0"}\nwarmup: {prompts: [Hi], max_tokens: 2}\n'
            "timeouts: {probe_interval: 300ms, probe: 1s, stall: 1s}\n"
        )
        try:
            start(outside)
            seen = server.call_now("/_fake/seen")["requests"]
            assert [json.loads(one["body"])["max_tokens"] for one in seen if "chat" in one["target"]] == [2]
            server.call_now("/_fake/set", {"fault": "hang"})  # its /health goes on saying 200
            wait_for("the hang seen", lambda: outside.engine()["phase"] == "down", 30)
            assert "hung: asked for one token while idle" in outside.engine()["last_failure"]
            server.call_now("/_fake/set", {"fault": ""})
            wait_for("ready again", lambda: outside.engine()["phase"] == "ready", 30)
            # A refusal is no token, but a sign of life: after three of them it is still in, and answers the fourth.
            server.call_now("/_fake/set", {"fault": "answer_early", "fault_count": 3})
            answered = len(server.call_now("/_fake/seen")["requests"])
            wait_for("a probe", lambda: len(server.call_now("/_fake/seen")["requests"]) > answered, 30)
            assert metric(outside.url, "launcher_replica_losses_total") == 1
        finally:
            outside.down("--now")


def test_there_is_no_way_around_the_gateway(tmp_path: Path) -> None:
    """The engine asks for a key that is new at each start and is found in its environment only, where its owner may look."""
    endpoint = FakeEndpoint(tmp_path)
    endpoint.environment["LAUNCHER_API_KEYS"] = "sk-0123456789abcdef"
    start(endpoint)
    try:
        engine = endpoint.engine()
        for key in ("", "sk-0123456789abcdef"):
            request = endpoint.chat(engine["url"])
            request.add_header("Authorization", f"Bearer {key}")
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(request, timeout=20)
        environ = Path(f"/proc/{engine['pid']}/environ").read_text().split("\0")
        secret = next(line for line in environ if line.startswith("VLLM_API_KEY=")).partition("=")[2]
        assert len(secret) == 43
        assert not any(line.startswith("LAUNCHER_API_KEYS=") for line in environ)
        assert secret not in Path(f"/proc/{engine['pid']}/cmdline").read_text()
        assert not [
            path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_text("utf-8", "replace")
        ]
    finally:
        endpoint.down("--now")


def tmp_path_below(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("down", "nobody"), 4, "no deployment 'nobody' is running (running: none)"),
        (("down",), 4, "nothing is running"),
        (("logs", "nobody"), 4, "no deployment 'nobody' is running"),
        (("up", "fake.yaml", "--wait"), 2, "--wait and --timeout go with -d"),
        (("up", "nowhere.yaml"), 3, "nowhere.yaml"),
    ],
)
def test_words_for_mistakes(endpoint: FakeEndpoint, arguments: tuple[str, ...], code: int, words: str) -> None:
    result = endpoint.launcher(*arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert words in result.stderr
