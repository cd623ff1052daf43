"""Starts a profile through the launcher for a measurement, and stops it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from launcher.engine.metrics_page import samples
from loadtests.failures import Failed
from loadtests.masked import masked

ROOT = Path(__file__).resolve().parents[1]
NAME = "overload"
ENGINE_KEY = "overload"  # else each start has a secret one, and only the gateway gets in
# The supervisor must not take an engine for hung that a run has overloaded behind the gateway's back.
PATIENT = ("timeouts.stall=2h", "timeouts.probe_interval=2h", "timeouts.probe=2h")
BUSY = ("vllm:num_requests_running", "vllm:num_requests_waiting")
STATE = "LAUNCHER_STATE_DIR"
STOP_WITHIN_S, STOP_AGAIN_S = 30.0, 0.3


def say(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


def publish(text: str, markdown: Path | None) -> None:
    """A run's tables, to the terminal and to the file of --markdown."""
    if markdown:
        markdown.write_text(text)
    sys.stdout.write(text)


def load_line() -> str:
    """How busy the machine is: without it nobody can tell what the figures are worth."""
    return f"Load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores."


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM is as Ctrl-C meanwhile, so that what was started is stopped and what was measured is kept."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Deployment:
    """A profile that runs, with a state folder of its own."""

    def __init__(self, profile: str, sets: Sequence[str]) -> None:
        self._profile, self._sets = profile, tuple(sets)
        self._state = ""
        self.gateway = ""
        self.engines: list[str] = []  # their URLs
        self.pid = 0  # of the first engine

    @property
    def engine(self) -> str:
        """The first one."""
        return self.engines[0]

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "launcher", *arguments]
        environment = {**os.environ, STATE: self._state, "NO_COLOR": "1"}
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)

    def _launcher(self, *arguments: str) -> str:
        done = self._run(*arguments)
        if done.returncode:
            raise SystemExit(f"`launcher {arguments[0]}` failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def __enter__(self) -> Deployment:
        self._state = tempfile.mkdtemp(prefix="overload-")
        fixed = (f"name={NAME}", "gateway.listen=127.0.0.1:0", f"engine.env.VLLM_API_KEY={ENGINE_KEY}", *PATIENT)
        options = [part for one in (*fixed, *self._sets) for part in ("--set", one)]
        say(f"starting {self._profile} with {' '.join(masked(self._sets)) or 'no changes'}")
        try:
            self._launcher("up", self._profile, "-d", "--wait", *options)
            (one,) = json.loads(self._launcher("ps", "-o", "json"))["deployments"]
            self.gateway, self.engines = one["url"], [engine["url"] for engine in one["engines"]]
            self.pid = int(one["engines"][0]["pid"] or one["pid"])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """The state folder stays where something may still run: without it nobody could stop that."""
        is_stopped = False
        try:
            is_stopped = self._stopped()
        finally:
            if is_stopped:
                shutil.rmtree(self._state, ignore_errors=True)
            else:
                say(f"{NAME} could not be stopped: {STATE}={self._state} launcher down {NAME}")

    def _stopped(self) -> bool:
        """Whether nothing of it runs any more, asked again for a while.

        `launcher down` fails where there is nothing to stop, but also in the first second of a start: the background
        launcher has not claimed its name yet, and would go on without us.
        """
        deadline = time.monotonic() + STOP_WITHIN_S
        while True:
            is_said = not self._run("down", NAME).returncode
            if not started_with(self._state):
                return True
            if time.monotonic() > deadline:
                return is_said
            time.sleep(STOP_AGAIN_S)

    def models(self) -> str:
        """What the gateway says of its models."""
        with urlopen(f"{self.gateway}/v1/models", timeout=60) as response:
            text: str = response.read().decode()
            return text

    def until_idle(self, within_s: float = 300.0) -> None:
        """Waits until no engine works on anything, by its own word. Raises Failed where one cannot be asked."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if not any(map(in_hand, self.engines)):
                return
            time.sleep(0.3)
        raise SystemExit(f"The engine was not idle {within_s:g} s after a run.")


def in_hand(engine: str) -> float:
    """How many requests an engine runs or has waiting. Raises Failed."""
    try:
        with urlopen(f"{engine}/metrics", timeout=60) as response:
            return sum(samples(response.read().decode(), *BUSY))
    except (OSError, HTTPException, ValueError) as error:
        raise Failed(f"the engine at {engine} could not be asked whether it works: {error or repr(error)}") from None


def started_with(state: str) -> list[int]:
    """The processes that have this state folder in their environment, whether or not they have claimed their name."""
    wanted = f"{STATE}={state}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:  # gone meanwhile, or not ours
            continue
    return found
