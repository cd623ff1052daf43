"""One folder for each running deployment: a lock that dies with its launcher, a record of what runs, the logs.

``$LAUNCHER_STATE_DIR`` or ``$XDG_STATE_HOME/vllm-profile-launcher`` (``~/.local/state/…``), then the deployment's name.
The record is replaced whole, so that a reader never sees half of one.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from launcher.errors import PreconditionError
from launcher.supervise.child import kill_session, start_time

RECORD, LOCK = "state.json", "lock"
PLAN = "plan.json"  # what it was started by, for the operator's page
TARGETS = "prometheus.json"  # for its file_sd_configs: engines listen on another port at each start
ENDED = "ended"


def state_root() -> Path:
    """The folder of all run directories."""
    if own := os.environ.get("LAUNCHER_STATE_DIR"):
        return Path(own)
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "vllm-profile-launcher"


@dataclass(frozen=True)
class Found:
    """A run directory as seen from outside. ``alive``: its launcher holds the lock."""

    path: Path
    record: Mapping[str, Any]
    alive: bool

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def pid(self) -> int | None:
        return self.record.get("pid")

    def again(self) -> Found:
        """The same, as it is now."""
        return Found(self.path, read_record(self.path), is_locked(self.path))

    @property
    def logs(self) -> Path:
        return Path(self.record.get("logs") or self.path / "logs")


class RunDir:
    """The claimed run directory of this process's deployment."""

    def __init__(self, path: Path, lock: int, stale_pid: int | None, cleaned: Sequence[int]) -> None:
        self.path = path
        self.stale_pid = stale_pid  # the launcher that left this directory without an end, if one did
        self.cleaned = tuple(cleaned)  # its processes that were still there, ended by this claim
        self._lock = lock
        self._targets: list[dict[str, Any]] | None = None

    @classmethod
    def claim(cls, name: str) -> RunDir:
        """Take the name, ending what a killed launcher of that name left. Raises PreconditionError if it is taken."""
        path = state_root() / name
        try:
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o700)  # who may enter may open the admin socket
            lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise PreconditionError(
                f"{path} cannot be used as run directory: {error.strerror}",
                "Set LAUNCHER_STATE_DIR to a folder that you can write to.",
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            record = read_record(path)
            raise PreconditionError(
                f"{name!r} is already running (pid {record.get('pid', '?')}, {record.get('url') or 'still starting'})",
                f"Use it, or stop it with `launcher down {name}`, or start this one under another name with --set name=….",
            ) from None
        left = read_record(path)
        stale_pid = None if left.get("state", ENDED) == ENDED else left.get("pid")
        ended = end_leftovers(left)
        forget(path)  # before anybody can take the earlier launcher's pid for ours
        return cls(path, lock, stale_pid, ended)

    def write(self, record: Mapping[str, Any]) -> None:
        """Replace the record, and where Prometheus finds the engines if that has changed."""
        replace(self.path / RECORD, record)
        targets = engine_targets(self.path.name, record)
        if targets != self._targets:
            replace(self.path / TARGETS, targets)
            self._targets = targets

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        """Replace the plan."""
        replace(self.path / PLAN, plan)

    def release(self) -> None:
        """Give the name back; the logs stay, and the record says only that it ended."""
        forget(self.path)
        os.close(self._lock)


def forget(path: Path) -> None:
    """Leave a record that names no process: nothing of this deployment runs any more."""
    kept = {key: value for key, value in read_record(path).items() if key in ("profile", "logs", "keys_file")}
    replace(path / RECORD, {**kept, "state": ENDED})
    for name in (TARGETS, PLAN):
        (path / name).unlink(missing_ok=True)


def replace(path: Path, value: object) -> None:
    """Write the JSON beside the old file, then put it in its place."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    partial.replace(path)


def engine_targets(name: str, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where each engine of a record listens, as an instance that stays. https://prometheus.io/docs/guides/file-sd/"""
    return [
        {"targets": [urlsplit(engine["url"]).netloc], "labels": {"instance": f"{name}/{engine['index']}"}}
        for engine in record.get("engines", ())
        if engine.get("url")
    ]


def read_record(path: Path) -> dict[str, Any]:
    """The record in a run directory; empty when there is none."""
    try:
        record = json.loads((path / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def find_all(*, ended_too: bool = False) -> list[Found]:
    """Every deployment that runs or whose launcher was killed, by name; with ``ended_too`` those that ended well."""
    root = state_root()
    if not root.is_dir():
        return []
    found = [Found(path, read_record(path), is_locked(path)) for path in sorted(root.iterdir()) if path.is_dir()]
    return [one for one in found if one.alive or (one.record and (ended_too or one.record.get("state") != ENDED))]


def is_locked(path: Path) -> bool:
    """Whether a launcher holds this run directory."""
    try:
        lock = os.open(path / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def wait_unlocked(path: Path, seconds: float) -> bool:
    """Wait until the launcher of this run directory is gone; False when it is not within ``seconds``."""
    try:
        lock = os.open(path / LOCK, os.O_RDWR)
    except OSError:
        return True

    def too_long(_signal: int, _frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel wakes us when the holder goes
    except TimeoutError:
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        os.close(lock)
    return True


def end_leftovers(record: Mapping[str, Any]) -> list[int]:
    """Kill the engine processes named in a record whose launcher is gone; their pids. A reused pid is left alone."""
    ended: list[int] = []
    for engine in record.get("engines", ()):
        for pid, started in (("pid", "pid_started"), ("guard_pid", "guard_started")):
            if engine.get(pid) and start_time(engine[pid]) == engine.get(started):
                ended += kill_session(engine[pid])
    return ended
