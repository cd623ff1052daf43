"""Runs the real command line and talks to what it serves, for the tests on the real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROFILE = ROOT / "profiles" / "cpu-smollm2.yaml"
QUESTION = "What is the capital of France?"
CHECK_EVERY_S = 0.1
ENGINE_KEY = "e2e"  # of the shared engines, so that another gateway can be put before them


class Endpoint:
    """A deployment that is started, asked and stopped through `launcher`, with run directories of its own."""

    def __init__(self, state_dir: Path, name: str = "cpu-smollm2") -> None:
        self.name = name
        self.state_dir = state_dir
        self.said = ""  # by the last `up`
        self.environment = {**os.environ, "LAUNCHER_STATE_DIR": str(state_dir), "NO_COLOR": "1"}

    def launcher(self, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end."""
        return subprocess.run(
            [sys.executable, "-m", "launcher", *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def up(self, *sets: str, wait: bool = True, profile: Path = PROFILE) -> subprocess.CompletedProcess[str]:
        """Start in the background on a free port."""
        all_sets = ("gateway.listen=127.0.0.1:0", f"name={self.name}", *sets)
        options = [part for one in all_sets for part in ("--set", one)]
        result = self.launcher("up", str(profile), "-d", *(["--wait"] if wait else []), *options)
        self.said = result.stdout + result.stderr
        return result

    def down(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.launcher("down", self.name, *options)

    def record(self) -> dict[str, Any]:
        """What `ps -o json` says of this deployment; empty when it is not there."""
        listed = json.loads(self.launcher("ps", "-o", "json").stdout)["deployments"]
        return next((one for one in listed if one["name"] == self.name), {})

    @property
    def url(self) -> str:
        return str(self.record()["url"])

    def engine(self) -> dict[str, Any]:
        engine: dict[str, Any] = self.record()["engines"][0]
        return engine

    def log_tail(self, most_bytes: int = 20_000) -> str:
        """The end of what the launcher has logged; '' before it has."""
        path = self.state_dir / self.name / "logs" / "up.log"
        return path.read_text()[-most_bytes:] if path.exists() else ""

    def chat(self, url: str, **changes: Any) -> urllib.request.Request:
        """A chat request, as the README has it; the default profile answers greedily."""
        body = {"model": "smollm2", "messages": [{"role": "user", "content": QUESTION}], **changes}
        return urllib.request.Request(
            f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )

    def stream(self, url: str, **changes: Any) -> Iterator[dict[str, Any]]:
        """The events of a streamed answer as they come; ends at [DONE]."""
        with urllib.request.urlopen(self.chat(url, stream=True, **changes), timeout=120) as response:
            for line in response:
                if line.startswith(b"data: "):
                    if line.strip() == b"data: [DONE]":
                        return
                    yield json.loads(line[6:])
        raise AssertionError("the stream ended without [DONE]")


def metric(engine_url: str, name: str, labels: str = "") -> float:
    """The sum of a series on an engine's own /metrics; by its URL, since `launcher ps` takes seconds beside a busy engine."""
    with urllib.request.urlopen(engine_url + "/metrics", timeout=20) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name) and labels in line)


def wait_for(what: str, holds: Callable[[], Any], within_s: float = 180) -> Any:
    """Ask until it holds: for states of other processes that send no event."""
    deadline, seen = time.monotonic() + within_s, list[Any]()
    while time.monotonic() < deadline:
        try:
            if value := holds():
                return value
        except (urllib.error.URLError, ConnectionError, KeyError, IndexError) as error:
            value = repr(error)
        if not seen or seen[-1] != value:
            seen.append(value)
        time.sleep(CHECK_EVERY_S)
    raise AssertionError(f"{what} did not come within {within_s:g} s; what was seen in its place: {seen[-5:]}")


def get(url: str) -> tuple[int, Any]:
    """Status and JSON of a GET, whatever the status."""
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def content(event: dict[str, Any]) -> str:
    """The text of one streamed event."""
    return "".join(choice["delta"].get("content") or "" for choice in event["choices"])
