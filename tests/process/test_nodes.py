"""An engine over two hosts, over fake engines: they start together, fail together, come back together and stop together."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.endpoint import wait_for
from tests.e2e.host import is_gone
from tests.process.nodes import FakeHost, make_hosts
from tests.process.parts import part

Hosts = tuple[Path, FakeHost, FakeHost]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = make_hosts(tmp_path)
    yield made
    for host in made[1:]:
        host.close()


def answer(head: FakeHost) -> str:
    with urllib.request.urlopen(head.chat(head.url), timeout=20) as response:
        return str(json.load(response)["choices"][0]["message"]["content"])


def start(hosts: Hosts) -> None:
    profile, head, other = hosts
    head.begin(profile)
    other.begin(profile)
    head.wait_said("Ready:")


def test_each_failure_ends_both_and_starts_both_again(hosts: Hosts) -> None:
    profile, head, other = hosts
    head.begin(profile, "--set", "restart.budget=5")
    head.wait_said("engine: waiting for node 1")
    assert head.engine()["stage"] == "waiting for node 1"
    assert head.engine()["pid"] is None  # nothing is started before all are there
    other.begin(profile)
    head.wait_said("Ready:")
    assert "Paris" in answer(head)

    parts = head.part(), other.part()
    other.kill_engine()  # the other host's engine
    said = head.wait_said("engine: ready again")
    assert "node 1: the engine was killed with SIGKILL" in said
    assert all(map(is_gone, parts))

    parts = head.part(), other.part()
    head.kill_engine()  # the head's
    head.wait_said("engine: ready again", times=2)
    assert "node 1: waiting for the other nodes (the head ended it: the engine was killed" in other.log_tail()
    assert all(map(is_gone, parts))

    parts = head.part(), other.part()
    other.kill()  # the other host's launcher, and with it the host's part
    head.wait_said("engine: waiting for node 1 (attempt")
    assert "node 1 is gone: the connection was closed" in head.log_tail()
    wait_for("both to be gone", lambda: all(map(is_gone, parts)), within_s=20)
    other.begin(profile)
    head.wait_said("engine: ready again", times=3)
    assert "Paris" in answer(head)

    parts = head.part(), other.part()
    assert head.end() == 0
    other.wait_said("(it was stopped)")
    assert all(map(is_gone, parts))
    assert other.end() == 0


def test_the_head_killed_leaves_nothing_and_comes_back(hosts: Hosts) -> None:
    profile, head, other = hosts
    start(hosts)
    parts = head.part(), other.part()
    head.kill()
    wait_for("both to be gone", lambda: all(map(is_gone, parts)), within_s=20)
    other.wait_said("waiting for the head at")
    head.begin(profile)
    head.wait_said("Ready:", times=2)
    assert "Paris" in answer(head)


def test_another_profile_is_sent_away(hosts: Hosts) -> None:
    profile, head, other = hosts
    head.begin(profile)
    head.wait_said("waiting for node 1")
    other.begin(profile, "--set", "engine.max_num_seqs=7")
    assert other.wait() == 4
    assert (
        "error: the head, 127.0.0.1, sent this host away: node 1 has another profile than the head: engine.max_num_seqs "
        "differs\n→ Give every host the same profile file" in other.log_tail()
    )
    head.wait_said("127.0.0.1 was sent away: node 1 has another profile than the head: engine.max_num_seqs differs")
    assert head.end() == 0  # while it still waits


def test_only_who_has_the_key_comes_in(hosts: Hosts) -> None:
    profile, head, other = hosts
    head.environment["LAUNCHER_ENGINE_KEY"] = "right"
    other.environment["LAUNCHER_ENGINE_KEY"] = "wrong"
    head.begin(profile)
    head.wait_said("waiting for node 1")
    other.begin(profile)
    assert other.wait() == 4
    assert "node 1 has another LAUNCHER_ENGINE_KEY than the head" in other.log_tail()
    other.environment["LAUNCHER_ENGINE_KEY"] = "right"
    other.begin(profile)
    head.wait_said("Ready:")


def test_a_host_told_to_stop_first_outlives_the_drain_of_the_head(hosts: Hosts) -> None:
    """A job or a group of pods is told all at once."""
    profile, head, other = hosts
    head.behave(hold_after=50)  # beyond the warm-up
    head.begin(profile)
    other.begin(profile, "--once")
    head.wait_said("Ready:")
    url, engine = head.url, head.engine()["url"]
    events = head.stream(url, max_tokens=100, messages=[{"role": "user", "content": "Count."}])
    next(events)
    other.ask_to_stop()
    other.wait_said("stopping: the part goes on until the head ends it, 22 s at most")
    head.ask_to_stop()
    head.wait_said("stopping: no new requests")
    urllib.request.urlopen(f"{engine}/_fake/release?count=100", data=b"{}", timeout=20).close()
    list(events)  # to its end, or it raises
    assert (head.wait(), other.wait()) == (0, 0)


def test_a_host_of_one_job_leaves_with_the_head_and_says_why(hosts: Hosts) -> None:
    profile, head, other = hosts
    head.behave(start_exit=3)
    head.begin(profile, "--set", "restart.budget=0")
    other.begin(profile, "--once")
    assert head.wait() == 5
    assert other.wait() == 5
    assert "error: the head gave up: the engine ended with exit code 3" in other.log_tail()


def test_in_the_background(hosts: Hosts) -> None:
    profile, head, other = hosts
    begun = other.launcher("up", str(profile), *other.words, "-d")
    assert begun.returncode == 0, begun.stderr
    assert "fake-node-1 waits in the background for the head" in begun.stderr
    try:
        shown = other.launcher("ps").stdout
        assert "fake-node-1  waiting" in shown
        assert "waiting for the head at 127.0.0.1:" in shown
        ready = head.launcher("up", str(profile), *head.words, "-d", "--wait")
        assert ready.returncode == 0, ready.stderr
        assert "engine-1 | " in other.launcher("logs", "fake-node-1").stdout
    finally:
        head.down("--now")
        stopped = other.down()
    assert stopped.returncode == 0, stopped.stderr
    assert "--wait goes with --node-rank 0" in other.launcher("up", str(profile), *other.words, "-d", "--wait").stderr


def test_without_a_gateway(hosts: Hosts, tmp_path: Path) -> None:
    """As containers run them: host 0 listens, and each has a file that is there while it runs."""
    profile, head, other = hosts
    files = [tmp_path / f"ready-{rank}" for rank in (0, 1)]
    begun = [["--ready-file", str(files[rank]), *host.words] for rank, host in ((0, head), (1, other))]
    with (
        part("engine", profile, head.state_dir, *begun[0]) as engine,
        part("engine", profile, other.state_dir, *begun[1], "--once") as further,
    ):
        wait_for("ready", engine.is_ready, within_s=60)
        assert all(file.exists() for file in files)
        engine.stop()
        assert (engine.ended(), further.ended()) == (0, 0)
        assert not any(file.exists() for file in files)


def test_without_its_place_the_commands_of_all_hosts_are_told(hosts: Hosts) -> None:
    profile, head, _ = hosts
    told = head.launcher("up", str(profile), "--set", "engine.max_num_seqs=4")
    assert told.returncode == 2
    command = f"launcher up {profile} --set engine.max_num_seqs=4"
    assert told.stderr.splitlines() == [
        "error: engine.nodes is 2, and --node-rank and --head are not given: each of the 2 hosts runs a part, and needs to "
        "know which",
        f"→ on host 0:  {command} --node-rank 0 --head ADDRESS",
        f"  on host 1:  {command} --node-rank 1 --head ADDRESS",
        "  ADDRESS is host 0's own, on the network that joins them",
    ]
