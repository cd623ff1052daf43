"""One of an engine's hosts: a launcher in the foreground, with folders of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from launcher.supervise.child import start_time
from launcher.supervise.guard import descendants
from launcher.supervise.rundir import read_record
from tests.e2e.endpoint import ROOT, Endpoint, wait_for


class Host(Endpoint):
    """Rank 0 is named as the deployment, the others with their rank. ``words`` say its place to the launcher."""

    def __init__(self, state_dir: Path, name: str, rank: int, head: str) -> None:
        super().__init__(state_dir, name if rank == 0 else f"{name}-node-{rank}")
        self.words = ["--node-rank", str(rank), "--head", head]
        self.running: subprocess.Popen[str] | None = None

    def argv(self, *words: str) -> list[str]:
        """How a command is run on this host."""
        return list(words)

    def begin(self, profile: Path, *options: str) -> None:
        """Start; what it says is in said.log."""
        self.state_dir.mkdir(exist_ok=True)
        argv = self.argv(sys.executable, "-m", "launcher", "up", str(profile), *self.words, *options)
        with (self.state_dir / "said.log").open("a") as log:
            self.running = subprocess.Popen(argv, env=self.environment, cwd=ROOT, stdout=log, stderr=log, text=True)

    def log_tail(self, most_bytes: int = 20_000) -> str:
        path = self.state_dir / "said.log"
        return path.read_text()[-most_bytes:] if path.exists() else ""

    def wait_said(self, words: str, times: int = 1, within_s: float = 60) -> str:
        """All that it has said, once it has said that so often; what it said instead where it does not."""
        try:
            wait_for(f"{words!r} of {self.name}", lambda: self.log_tail().count(words) >= times, within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_tail()}") from None
        return self.log_tail()

    def record(self) -> dict[str, Any]:
        return read_record(self.state_dir / self.name)

    def part(self) -> set[tuple[int, int | None]]:
        """The processes of the engine that are here, each with the time of its start: the guard and all below it."""
        guard = wait_for("a process", lambda: self.engine()["guard_pid"], within_s=60)
        return {(pid, start_time(pid)) for pid in (guard, *descendants(guard))}

    def kill_engine(self) -> None:
        """The engine's own process, alone."""
        os.kill(self.engine()["pid"], signal.SIGKILL)

    def kill(self) -> None:
        """The launcher alone; its guards see that."""
        assert self.running is not None
        self.running.kill()
        self.running.wait()

    def wait(self) -> int:
        """Until it ends by itself; the exit code."""
        assert self.running is not None
        return self.running.wait(timeout=60)

    def end(self) -> int:
        """Asked to stop; the exit code."""
        self.ask_to_stop()
        return self.wait()

    def ask_to_stop(self) -> None:
        assert self.running is not None
        self.running.send_signal(signal.SIGTERM)

    def close(self) -> None:
        if self.running is not None and self.running.poll() is None:
            self.kill()


def is_gone(part: set[tuple[int, int | None]]) -> bool:
    """Whether none of these processes is there any more."""
    return all(started is None or start_time(pid) != started for pid, started in part)
