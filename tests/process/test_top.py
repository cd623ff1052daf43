"""`launcher top` over the whole command line and a fake engine: once, as JSON, and on a terminal until Ctrl+C."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.process.deployment import FakeEndpoint

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeEndpoint]:
    endpoint = FakeEndpoint(tmp_path_factory.mktemp("top"))
    started = endpoint.up(profile=endpoint.profile)
    assert started.returncode == 0, started.stderr
    list(endpoint.stream(endpoint.url, max_tokens=5))
    yield endpoint
    endpoint.down("--now")


def test_once(running: FakeEndpoint) -> None:
    shown = running.launcher("top", "--once")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[0].startswith("fake  ready  smollm2  mode balanced  up ")
    assert lines[1].split() == [
        "ENGINE",
        "STATE",
        "IN",
        "FLIGHT",
        "PREFILL",
        "KV",
        "CACHE",
        "TOKENS/S",
        "RESTARTS",
        "LAST",
        "FAILURE",
    ]
    assert lines[2].split()[:4] == ["0", "ready", "0", "0/2048"]
    assert "refused      nobody" in lines


def test_as_json(running: FakeEndpoint) -> None:
    seen = json.loads(running.launcher("top", "--once", "-o", "json").stdout)
    assert (seen["name"], seen["state"], seen["warnings"]) == ("fake", "ready", [])
    (engine,) = seen["engines"]
    assert (engine["phase"], engine["running"]) == ("ready", 0.0)
    assert seen["live"]["totals"]["served"] == 1
    assert seen["live"]["last_minute"]["ttft_p50_ms"] > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-o", "json"), "-o json shows one moment: add --once"),
        ((), "for a file or a pipe add --once"),
        (("nobody", "--once"), "nobody"),
    ],
)
def test_what_cannot_be_shown(running: FakeEndpoint, options: tuple[str, ...], words: str) -> None:
    shown = running.launcher("top", *options)
    assert shown.returncode != 0
    assert words in shown.stderr
    assert "Traceback" not in shown.stderr


def test_on_a_terminal_until_ctrl_c(running: FakeEndpoint) -> None:
    ours, theirs = pty.openpty()
    environment = {**running.environment, "TERM": "xterm", "COLUMNS": "140", "LINES": "40"}
    process = subprocess.Popen(
        [sys.executable, "-m", "launcher", "top", "--every", "0.2"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    drawn = b""
    while drawn.count(b"last minute") < 3:
        drawn += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    try:
        while data := os.read(ours, 65536):
            drawn += data
    except OSError:  # its side of the terminal is closed
        pass
    os.close(ours)
    assert process.wait(timeout=20) == 0
    text = ESCAPES.sub("", drawn.decode())
    assert "fake  ready" in text
    assert "Traceback" not in text


def test_on_a_terminal_until_the_deployment_ends(running: FakeEndpoint) -> None:
    ours, theirs = pty.openpty()
    environment = {**running.environment, "TERM": "xterm", "COLUMNS": "140", "LINES": "40"}
    process = subprocess.Popen(
        [sys.executable, "-m", "launcher", "top", "--every", "0.2"],
        stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    drawn = b""
    while b"last minute" not in drawn:
        drawn += os.read(ours, 65536)
    reader = threading.Thread(target=drain, args=(ours,))
    reader.start()
    assert running.down("--now").returncode == 0
    _, said = process.communicate(timeout=20)
    reader.join()
    os.close(ours)
    assert (process.returncode, said) == (0, "fake: the deployment has ended\n")


def drain(terminal: int) -> None:
    """Read until the other side is closed, so that nobody waits to write."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 65536):
            pass
