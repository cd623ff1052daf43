"""`launcher engine` and `launcher gateway` as processes, on free ports of loopback, for tests of the two halves."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.e2e.endpoint import ROOT, get, wait_for

ANY_ENGINE = {"FAKE_ENGINE_PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


class Part:
    """One half of a deployment. ``said`` is its stderr so far, ``printed`` its stdout."""

    def __init__(self, verb: str, profile: Path, port: int, *options: str, environment: Mapping[str, str]) -> None:
        self.url, self.status_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"
        argv = [sys.executable, "-m", "launcher", verb, str(profile), "--listen", f"127.0.0.1:{port}", *options]
        self.process = subprocess.Popen(
            argv, env={**os.environ, **ANY_ENGINE, **environment}, cwd=ROOT, text=True, stdout=-1, stderr=-1
        )
        self.printed, self.said = "", ""
        self._readers = [threading.Thread(target=self._read, args=(name,)) for name in ("stdout", "stderr")]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: str) -> None:
        for line in getattr(self.process, stream):
            if stream == "stdout":
                self.printed += line
            else:
                self.said += line

    def stop(self) -> None:
        """The polite signal; `ended` waits."""
        self.process.send_signal(signal.SIGTERM)

    def ended(self, within_s: float = 60) -> int:
        """Its exit code, once it has ended and all it said is read."""
        code = self.process.wait(within_s)
        for reader in self._readers:
            reader.join()
        return code

    def end_now(self) -> None:
        """Ends it, polite or not."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGINT)  # of another kind: two alike in one instant are one signal
        self.ended()

    def is_ready(self) -> bool:
        """Whether GET /ready of the engine's launcher says so."""
        return get(f"{self.status_url}/ready")[0] == 200

    def __repr__(self) -> str:
        return f"<Part {self.url} said {self.said[-2000:]!r}>"


def start(verb: str, profile: Path, state: Path, *options: str, port: int = 0, **environment: str) -> Part:
    """Runs one; whoever starts it ends it."""
    own = {"LAUNCHER_STATE_DIR": str(state), **environment}
    return Part(verb, profile, port or free_pair(), *options, environment=own)


@contextlib.contextmanager
def part(verb: str, profile: Path, state: Path, *options: str, port: int = 0, **environment: str) -> Iterator[Part]:
    """Runs one, and ends it in the end."""
    one = start(verb, profile, state, *options, port=port, **environment)
    try:
        yield one
    finally:
        one.end_now()


def free_pair() -> int:
    """A port of loopback that is free, and the next one too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


def ready(gateway: Part, replicas: int, within_s: float = 120) -> None:
    """Until the gateway has so many replicas that are ready."""

    def count() -> bool:
        answer = get(f"{gateway.url}/ready")[1]
        return sum(one["ready"] for one in answer["replicas"]) == replicas

    try:
        wait_for(f"{replicas} ready replicas", count, within_s)
    except AssertionError as error:
        raise AssertionError(f"{error}; {gateway!r}") from None
