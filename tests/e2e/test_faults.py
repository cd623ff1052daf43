"""What goes wrong in the night, on the real engine: killed, stopped, looping, drained."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

from launcher.supervise.child import start_time
from tests.e2e.endpoint import ENGINE_KEY, PROFILE, ROOT, Endpoint, content, get, wait_for

LONG = {"max_tokens": 300, "ignore_eos": True}
RESTART_S = 400  # an engine's start takes 45 s here, and several times that on a machine with other work


def ready_again(endpoint: Endpoint, restarts: int = 0) -> dict[str, object]:
    """The engine, once it is ready after so many restarts: both from one record, since /ready may still be the old one."""

    def is_ready() -> dict[str, object] | None:
        record = endpoint.record()
        engine = record["engines"][0]
        return engine if record["state"] == "ready" and engine["restarts"] >= restarts else None

    try:
        engine: dict[str, object] = wait_for("ready again", is_ready, within_s=RESTART_S)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{endpoint.record()}\n{endpoint.log_tail()}") from None
    return engine


def processes_of(endpoint: Endpoint) -> set[int]:
    """Every process below the engine's guard, the guard too."""
    engine = endpoint.engine()
    found, pending = set(), [engine["guard_pid"]]
    while pending:
        pid = pending.pop()
        found.add(pid)
        listed = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True).stdout
        pending += map(int, listed.split())
    return found


# What is put together begins with the undisturbed answer. It may be longer: an engine that gets little of a core puts several
# tokens into one event, and events are what the gateway can count. On a quiet machine test_resume.py holds it to the token.
STORY = {
    "messages": [{"role": "user", "content": "Tell a story of a fox, a crow and a river."}],
    "max_tokens": 150,
    "temperature": 0,
}


def test_kill_9_in_mid_answer_and_the_restarted_engine_goes_on(endpoint: Endpoint) -> None:
    """One replica: its client waits through the restart and sees the answer of an undisturbed run."""
    url, before = endpoint.url, endpoint.engine()
    whole = "".join(map(content, endpoint.stream(url, **STORY)))
    events = endpoint.stream(url, **STORY)
    text = "".join(content(next(events)) for _ in range(20))
    os.kill(before["pid"], signal.SIGKILL)
    text += "".join(map(content, events))  # ends with [DONE], or stream() raises
    assert text.startswith(whole)
    after = ready_again(endpoint, before["restarts"] + 1)
    assert after["pid"] != before["pid"]
    assert "SIGKILL" in after["last_failure"]


def test_a_stopped_engine_is_seen_as_hung(endpoint: Endpoint) -> None:
    before = ready_again(endpoint)  # one that is stopped while it starts is missed only when the time for that is over
    for pid in processes_of(endpoint) - {before["guard_pid"]}:
        os.kill(pid, signal.SIGSTOP)
    after = ready_again(endpoint, before["restarts"] + 1)
    assert after["last_failure"].startswith("hung: ")


def test_a_second_up_of_the_same_name(endpoint: Endpoint) -> None:
    before = endpoint.record()
    second = endpoint.up(wait=False)
    assert second.returncode == 4
    assert f"'cpu-smollm2' is already running (pid {before['pid']}, {before['url']})" in second.stderr
    assert endpoint.record()["pid"] == before["pid"]


def test_down_during_a_stream_loses_no_token(endpoint: Endpoint) -> None:
    ready_again(endpoint)
    url = endpoint.url
    whole = "".join(map(content, endpoint.stream(url, **LONG)))
    engines = processes_of(endpoint)
    events = endpoint.stream(url, **LONG)
    text = content(next(events))
    stopping = threading.Thread(target=endpoint.down)
    stopping.start()
    wait_for("draining", lambda: get(f"{url}/ready")[0] == 503)
    with pytest.raises(urllib.error.HTTPError, match="503") as refused:
        urllib.request.urlopen(endpoint.chat(url), timeout=20)
    assert refused.value.headers["Retry-After"]
    assert json.load(refused.value)["error"]["src"] == "gateway"
    text += "".join(map(content, events))
    stopping.join()
    assert text == whole
    assert endpoint.record() == {}
    assert not {pid for pid in engines if start_time(pid)}


TWO_ENGINES = """
version: 1
name: two
model: {{served_name: smollm2}}
engine: {{kind: external, urls: [{0}, {1}], api_key_env: ENGINE_KEY}}
"""


def test_kill_9_with_two_replicas(served: Endpoint, mortal: Endpoint, own_endpoint: Endpoint) -> None:
    """One gateway before two real engines: the other one goes on at once, and takes what had not begun.

    The launcher of the one that died ends, since it has no restart left. The loop itself is run on the fake engine:
    tests/process/test_supervisor.py.
    """
    kept, killed = served.engine(), mortal.engine()  # before the stream: `ps` takes as long as it
    profile = own_endpoint.state_dir / "two.yaml"
    profile.write_text(TWO_ENGINES.format(kept["url"], killed["url"]))
    own_endpoint.environment["ENGINE_KEY"] = ENGINE_KEY
    started = own_endpoint.up(profile=profile)
    assert started.returncode == 0, started.stderr
    url = own_endpoint.url
    whole = "".join(map(content, own_endpoint.stream(url, **STORY)))
    for _ in range(4):  # they take turns, but the canary may have had one
        events = own_endpoint.stream(url, **STORY)
        text = "".join(content(next(events)) for _ in range(20))
        if get(f"{url}/ready")[1]["replicas"][1]["in_flight"]:
            break
        assert text + "".join(map(content, events)) == whole
    os.kill(killed["pid"], signal.SIGKILL)
    text += "".join(map(content, events))
    assert text.startswith(whole)
    assert "Paris" in "".join(map(content, own_endpoint.stream(url, max_tokens=32, temperature=0)))
    with urllib.request.urlopen(f"{url}/metrics", timeout=20) as page:
        metrics = page.read().decode()
    assert 'launcher_stream_resumes_total{outcome="resumed"} 1.0' in metrics
    assert "launcher_ledger_corrections_total 0.0" in metrics
    wait_for("the end", lambda: mortal.record() == {})
    said = mortal.log_tail()
    assert "engine 0 failed: " in said
    assert "SIGKILL" in said


def test_kill_9_of_the_launcher_leaves_nothing(own_endpoint: Endpoint) -> None:
    started = own_endpoint.up(wait=False)
    assert started.returncode == 0, started.stderr
    wait_for("an engine", lambda: own_endpoint.engine()["pid"])
    below = wait_for("its workers", lambda: len(found := processes_of(own_endpoint)) > 2 and found)
    os.kill(own_endpoint.record()["pid"], signal.SIGKILL)
    wait_for("their end", lambda: not {pid for pid in below if start_time(pid)}, within_s=20)
    assert own_endpoint.record()["state"] == "dead"
    assert own_endpoint.down().returncode == 0
    assert own_endpoint.record() == {}


def test_ctrl_c_in_the_foreground(own_endpoint: Endpoint) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "launcher", "up", str(PROFILE), "--set", "gateway.listen=127.0.0.1:0"],
        env=own_endpoint.environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "starting" in line:
            break
    below = wait_for("its workers", lambda: len(found := processes_of(own_endpoint)) > 1 and found)
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, "".join(said) + rest
    assert not {pid for pid in below if start_time(pid)}
