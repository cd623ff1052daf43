"""Runs the Locust file against an endpoint, in a process of its own: what every measurement of `launcher bench` is made of."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher.probe.gpus import gpu_use
from loadtests.deployment import ROOT
from loadtests.failures import Failed, Late

KEY = "OPENAI_API_KEY"  # read by the Locust file, and by vLLM's own client
WARM_UP_S, CAPACITY_S = 5.0, 20.0
INTERRUPTED = 130  # the exit status, as of a shell
AHEAD = -10  # niceness


class Driver:
    """What is asked of which endpoint."""

    def __init__(self, chosen: argparse.Namespace, url: str, key: str = "") -> None:
        self.chosen, self.url, self.key = chosen, url, key
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")

    def load(self, *options: str) -> dict[str, Any]:
        """One run of the Locust file. Raises Failed, and Late where the run does not count."""
        out = Path(self._folder.name, "summary.json")
        out.unlink(missing_ok=True)
        chosen = self.chosen
        command = [
            sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py"), "--host", self.url, "--headless",
            "--only-summary", "--loglevel", "WARNING", "--scenario", chosen.scenario, "--slo", chosen.slo, "--summary", str(out), *options,
        ]  # fmt: skip
        for flag, value in (("--mode", chosen.mode), ("--scale", chosen.scale)):
            command += [flag, str(value)] if value else []
        command += ["--any-event"] if chosen.any_event else []
        said = run_first(command, with_key(self.key))
        if not out.exists():
            raise Failed(f"the load test did not run: {last_line(said)}")
        if late := [line for line in said.splitlines() if "does not count" in line]:
            raise Late(late[-1])
        found: dict[str, Any] = json.loads(out.read_text())
        return found

    def closed_loop(self, users: int, seconds: float, seed: int = 1) -> dict[str, Any]:
        """``users`` who each ask again as soon as they are answered. Raises Failed."""
        return self.load("-u", str(users), "-r", str(users), "-t", f"{seconds:g}s", "--seed", str(seed))

    def warm_up(self, users: int = 2, seed: int = 1) -> None:
        """The first requests of an engine are slow. Raises Failed."""
        self.closed_loop(users, WARM_UP_S, seed)

    def capacity(self, users: int, seed: int) -> dict[str, Any]:
        """As much as is answered: a closed loop of CAPACITY_S. Raises Failed."""
        return self.closed_loop(users, CAPACITY_S, seed)

    def open_loop(self, rate: float, seconds: float, seed: int) -> dict[str, Any]:
        """``rate`` requests a second, whether or not earlier ones are answered. Raises Failed, Late."""
        return self.load("--open-loop", f"{rate:g}", "--seconds", f"{seconds:g}", "--seed", str(seed))


def with_key(key: str) -> dict[str, str]:
    """The environment of a client that takes the key from there: everybody on the machine may read its arguments."""
    return {**os.environ, **({KEY: key} if key else {})}


def run_first(command: list[str], environment: dict[str, str]) -> str:
    """What a process says on stderr, which has the first turn at a core where we may say so: a late client measures itself."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    with process:
        with suppress(OSError):  # only root may
            os.setpriority(os.PRIO_PROCESS, process.pid, AHEAD)
        try:
            return process.communicate()[1]
        except BaseException:
            process.kill()
            raise


def last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def reason(error: BaseException) -> str:
    """The line of a failure that says why; with the next one where it only leads up to that."""
    lines = str(error).strip().splitlines() or ["it said nothing"]
    at = next((number for number, line in enumerate(lines) if line.startswith("error: ")), len(lines) - 1)
    more = lines[at + 1].strip().removeprefix("- ") if lines[at].endswith(":") and lines[at + 1 :] else ""
    return f"{lines[at]} {more}".rstrip()


def machine() -> str:
    cards = ", ".join(card.name for card in gpu_use())
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}" + (
        f", {cards}" if cards else ""
    )


def check_open_loop(scenario: str) -> None:
    """Raises ValueError with a sentence for a scenario whose requests need the answers before them."""
    if scenario == "dialogue":
        raise ValueError(
            "--scenario dialogue: a turn needs the answer before it, but requests come when they are due here; "
            "take `launcher bench sweep`, or `locust -f loadtests/locustfile.py -u USERS --scenario dialogue`"
        )
