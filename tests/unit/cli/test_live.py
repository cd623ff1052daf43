"""`launcher mode`, `launcher replica` and the live figures of `launcher ps`, against a real gateway's admin socket."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import execute
from launcher.cli.figures import cells
from launcher.errors import EXIT_FAILURE, EXIT_OK, EXIT_PRECONDITION, EXIT_USAGE
from launcher.supervise.rundir import RunDir
from tests.control.harness import AdminDesk, admin_desk

ENGINE = {"index": 0, "phase": "ready", "stage": "", "url": "http://127.0.0.1:9", "since": 0.0, "restarts": 0}
NOWHERE = "http://127.0.0.1:9"  # nobody listens: the figures are of a gateway that is at rest


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAUNCHER_STATE_DIR", str(tmp_path))
    return tmp_path


def claim(name: str, **record: Any) -> RunDir:
    """A deployment's run directory as its launcher holds it."""
    rundir = RunDir.claim(name)
    rundir.write({"pid": os.getpid(), "state": "ready", "url": "http://127.0.0.1:1", "engines": [ENGINE], **record})
    return rundir


@pytest.fixture
async def running(state_dir: Path) -> AsyncIterator[AdminDesk]:
    """A deployment called ``one`` that runs."""
    rundir = claim("one")
    async with admin_desk(rundir.path, NOWHERE, supervised=True) as admin:
        yield admin
    rundir.release()


class Command:
    """The command line in this process, on a thread: the gateway has the event loop."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    async def __call__(self, *argv: str) -> tuple[int, str, str]:
        """Exit code, what went to stdout, what to stderr."""
        code = await asyncio.to_thread(execute, argv)
        said = self._capsys.readouterr()
        return code, said.out, said.err


@pytest.fixture
def launcher(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


class TestMode:
    async def test_shown_switched_shown(self, running: AdminDesk, launcher: Command) -> None:
        assert await launcher("mode") == (EXIT_OK, "one: balanced\n", "")
        assert await launcher("mode", "high-throughput") == (EXIT_OK, "one: high-throughput (was balanced)\n", "")
        assert await launcher("mode", "one", "high-throughput") == (EXIT_OK, "one: high-throughput\n", "")
        assert await launcher("mode", "one") == (EXIT_OK, "one: high-throughput\n", "")
        assert (await running.state())["mode"] == "high-throughput"

    async def test_json(self, running: AdminDesk, launcher: Command) -> None:
        _, out, _ = await launcher("mode", "low-latency", "-o", "json")
        assert json.loads(out) == {"schema_version": 1, "name": "one", "mode": "low-latency", "before": "balanced"}
        _, out, _ = await launcher("mode", "-o", "json")
        assert json.loads(out) == {"schema_version": 1, "name": "one", "mode": "low-latency"}

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["fast"], "'fast' is neither a mode (the modes are low-latency, balanced, high-throughput) nor running (one)."),
            (["one", "fast"], "'fast' is not a mode: the modes are low-latency, balanced, high-throughput."),
            (["one", "two", "balanced"], "one two balanced: too many words. Write: launcher mode [NAME] [MODE]"),
        ],
    )  # fmt: skip
    async def test_slips(self, running: AdminDesk, launcher: Command, words: list[str], said: str) -> None:
        code, out, err = await launcher("mode", *words)
        assert (code, out) == (EXIT_USAGE, "")
        assert said in err


class TestReplica:
    async def test_added_drained_undrained_removed(self, running: AdminDesk, launcher: Command) -> None:
        added = "one: Replica 1 gets requests as soon as its health path answers.\n"
        assert await launcher("replica", "add", "http://127.0.0.1:10") == (EXIT_OK, added, "")
        code, out, _ = await launcher("replica", "drain", "one", "0", "-o", "json")
        done = json.loads(out)
        assert (code, done["name"], done["replica"]["draining"]) == (EXIT_OK, "one", True)
        assert done["note"].endswith("Its engine goes on running.")
        assert (await launcher("replica", "undrain", "0"))[1] == (
            "one: Replica 0 gets requests again while it is ready.\n"
        )
        code, out, _ = await launcher("replica", "remove", "1")
        assert (code, out) == (
            EXIT_OK,
            "one: Replica 1 gets no new requests, finishes the 0 that it has, and is then forgotten.\n",
        )
        await running.until(lambda state: len(state["replicas"]) == 1)

    async def test_the_gateways_refusal_is_an_error(self, running: AdminDesk, launcher: Command) -> None:
        said = "error: one: There is no replica 7. There are: 0.\n"
        assert await launcher("replica", "drain", "7") == (EXIT_FAILURE, "", said)
        code, _, err = await launcher("replica", "add", "nonsense")
        assert code == EXIT_FAILURE
        assert "'nonsense' is not a server's base URL" in err

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["drain"], "INDEX is missing. Write: launcher replica drain [NAME] INDEX"),
            (["add"], "URL is missing. Write: launcher replica add [NAME] URL"),
            (["drain", "first"], "'first' is not an engine's number, such as 0; `launcher ps` shows them."),
            (["drain", "one", "0", "1"], "one 0 1: too many words."),
        ],
    )
    async def test_slips(self, running: AdminDesk, launcher: Command, words: list[str], said: str) -> None:
        code, _, err = await launcher("replica", *words)
        assert code == EXIT_USAGE
        assert said in err


class TestPs:
    async def test_live_figures(self, running: AdminDesk, launcher: Command) -> None:
        await launcher("replica", "drain", "0")
        _, out, _ = await launcher("ps")
        header, row = out.splitlines()
        cell = {name: row[header.index(name) :].split("  ")[0].strip() for name in ("IN FLIGHT", "QUEUED", "TOKENS/S")}
        assert cell == {"IN FLIGHT": "0", "QUEUED": "0", "TOKENS/S": "0"}
        assert row[header.index("PREFILL TOKENS") :].startswith("0/1000000")
        assert "ready, draining" in row

    async def test_json(self, running: AdminDesk, launcher: Command) -> None:
        _, out, _ = await launcher("ps", "-o", "json")
        (one,) = json.loads(out)["deployments"]
        assert (one["name"], one["state"], one["live"]["mode"]) == ("one", "ready", "balanced")

    async def test_without_a_gateway_the_record_is_shown(self, launcher: Command) -> None:
        claim("silent")
        _, out, _ = await launcher("ps", "-o", "json")
        (one,) = json.loads(out)["deployments"]
        assert (one["name"], one["state"], one["live"]) == ("silent", "ready", None)
        _, out, _ = await launcher("ps")
        assert out.splitlines()[1].split()[:4] == ["silent", "ready", "http://127.0.0.1:1", "0"]

    def test_cells(self) -> None:
        minute = {"ttft_p50_ms": 120.4, "ttft_p99_ms": 899.6, "output_tokens_s": 512.3}
        replicas = [{"index": 1, "in_flight": 3, "ledger": {"prefill_tokens": {"held": 10, "cap": 20}}}]
        state = {"replicas": replicas, "last_minute": minute, "queue": {"count": 4}}
        assert cells(state, 1, True) == ("3", "10/20", "4", "120/900 ms", "512")
        assert cells(state, 1, False) == ("3", "10/20", "", "", "")
        assert cells(state, 0, False) == ("",) * 5  # an engine that the gateway does not know yet


class TestNobodyThere:
    async def test_nothing_runs(self, launcher: Command) -> None:
        code, _, err = await launcher("mode", "balanced")
        assert code == EXIT_PRECONDITION
        assert err.startswith("error: nothing is running\n→ ")

    async def test_several_run(self, running: AdminDesk, launcher: Command) -> None:
        claim("two")
        code, _, err = await launcher("mode", "balanced")
        assert (code, err) == (EXIT_PRECONDITION, "error: 2 deployments are running: one, two\n→ Name one of them.\n")
        assert (await launcher("mode", "one", "balanced"))[0] == EXIT_OK

    async def test_the_socket_is_gone(self, state_dir: Path, launcher: Command) -> None:
        claim("one")
        code, _, err = await launcher("mode", "balanced")
        assert code == EXIT_PRECONDITION
        socket = state_dir / "one" / "gateway.sock"
        assert err.startswith(
            f"error: one runs, but its gateway cannot be asked: {socket}: there is no such socket\n→ "
        )

    async def test_it_is_only_just_starting(self, launcher: Command) -> None:
        claim("one", url="")
        code, _, err = await launcher("replica", "drain", "0")
        assert (code, err.splitlines()[0]) == (
            EXIT_PRECONDITION,
            "error: one is only just starting: its gateway does not listen yet",
        )

    async def test_its_launcher_was_killed(self, state_dir: Path, launcher: Command) -> None:
        (state_dir / "one").mkdir()
        (state_dir / "one" / "state.json").write_text('{"state": "ready", "pid": 1}')
        code, _, err = await launcher("mode", "balanced")
        assert (code, err.splitlines()[0]) == (
            EXIT_PRECONDITION,
            "error: one does not run: its launcher was killed",
        )

    async def test_a_run_directory_that_is_too_deep(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: Command
    ) -> None:
        monkeypatch.setenv("LAUNCHER_STATE_DIR", str(tmp_path / ("x" * 100)))
        claim("one")
        code, _, err = await launcher("mode")
        assert code == EXIT_PRECONDITION
        assert "is too long for a Unix socket" in err
