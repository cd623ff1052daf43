"""Starts a profile through the launcher for a measurement, and stops it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from launcher.engine.metrics_page import samples

ROOT = Path(__file__).resolve().parents[1]
NAME = "overload"
ENGINE_KEY = "overload"  # else each start has a secret one, and only the gateway gets in
# The supervisor must not take an engine for hung that a run has overloaded behind the gateway's back.
PATIENT = ("timeouts.stall=2h", "timeouts.probe_interval=2h", "timeouts.probe=2h")
BUSY = ("vllm:num_requests_running", "vllm:num_requests_waiting")


def say(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


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


def make_room(path: Path, option: str = "--out") -> None:
    """Makes the folder of a file that will be written. Raises ValueError with a sentence where it cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise ValueError(f"{option}: {path} is a folder; name a file in it")
    except OSError as error:
        raise ValueError(f"{option}: {path.parent} cannot be made: {error.strerror}; name a file elsewhere") from None
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"{option}: {path} cannot be written; name a file elsewhere")


def make_room_for_report(path: Path) -> None:
    """The same for a report, whose figures lie beside it as .json."""
    if path.suffix == ".json":
        raise ValueError(f"--out: {path} is where the figures go; name the report, such as {path.with_suffix('.html')}")
    make_room(path)
    make_room(path.with_suffix(".json"))


class Deployment:
    """A profile that runs, with a state folder of its own."""

    def __init__(self, profile: str, sets: Sequence[str]) -> None:
        self._profile, self._sets = profile, tuple(sets)
        self._state = tempfile.TemporaryDirectory(prefix="overload-")
        self._environment = {**os.environ, "LAUNCHER_STATE_DIR": self._state.name, "NO_COLOR": "1"}
        self.gateway = self.engine = ""
        self.pid = 0  # of the first engine

    def _launcher(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "launcher", *arguments]
        done = subprocess.run(command, env=self._environment, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"`launcher {arguments[0]}` failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def __enter__(self) -> Deployment:
        fixed = (f"name={NAME}", "gateway.listen=127.0.0.1:0", f"engine.env.VLLM_API_KEY={ENGINE_KEY}", *PATIENT)
        options = [part for one in (*fixed, *self._sets) for part in ("--set", one)]
        say(f"starting {self._profile} with {' '.join(self._sets) or 'no changes'}")
        try:
            self._launcher("up", self._profile, "-d", "--wait", *options)
            (one,) = json.loads(self._launcher("ps", "-o", "json"))["deployments"]
        except BaseException:
            self.__exit__()
            raise
        self.gateway, self.engine = one["url"], one["engines"][0]["url"]
        self.pid = int(one["engines"][0]["pid"] or one["pid"])
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(
            [sys.executable, "-m", "launcher", "down", NAME],
            env=self._environment, cwd=ROOT, capture_output=True, check=False,
        )  # fmt: skip
        self._state.cleanup()

    def models(self) -> str:
        """What the gateway says of its models."""
        with urlopen(f"{self.gateway}/v1/models", timeout=60) as response:
            text: str = response.read().decode()
            return text

    def until_idle(self, within_s: float = 300.0) -> None:
        """Waits until the engine works on nothing, by its own word."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            with urlopen(f"{self.engine}/metrics", timeout=60) as response:
                if not sum(samples(response.read().decode(), *BUSY)):
                    return
            time.sleep(0.3)
        raise SystemExit(f"The engine was not idle {within_s:g} s after a run.")
