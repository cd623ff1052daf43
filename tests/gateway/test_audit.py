"""The audit log: what a line holds, that it is only added to, and that no secret gets there."""

from __future__ import annotations

import json
import logging
import stat
import threading
from pathlib import Path

import pytest

from launcher.gateway.audit import AuditLog
from launcher.gateway.keyfile import new_secret


def entries(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_says_when_who_what_and_how_it_ended(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "logs" / "audit.log")
    assert log.record("alice", "mode", "low-latency → balanced", address="10.0.0.7")
    assert log.record("bob", "key.add", "carol", "failed: the name is taken")
    first, second = entries(log.path)
    assert first.pop("time").endswith("Z")
    assert first == {
        "actor": "alice",
        "act": "mode",
        "object": "low-latency → balanced",
        "result": "done",
        "address": "10.0.0.7",
    }
    assert (second["result"], "address" in second) == ("failed: the name is taken", False)
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_no_secret_and_no_second_line(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log")
    secret = new_secret()
    log.record(f"x{secret}", "key.add", f"name\n{secret}", f"failed: {secret!r} \ud800", address=secret)
    assert secret not in log.path.read_text()
    (entry,) = entries(log.path)
    assert entry["object"] == "name\nsk-…"


def test_is_rotated_like_the_other_logs(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log", max_bytes=400, keep=2)
    for number in range(20):
        log.record("a", "act", f"number {number}")
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["audit.log", "audit.log.1", "audit.log.2"]
    assert all(0 < file.stat().st_size <= 400 for file in files)
    kept = [entry["object"] for file in reversed(files) for entry in entries(file)]
    assert kept == [f"number {number}" for number in range(20 - len(kept), 20)]


def test_without_old_files_it_begins_anew(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log", max_bytes=150, keep=0)
    for number in range(5):
        log.record("a", "act", f"number {number}")
    assert [file.name for file in tmp_path.iterdir()] == ["audit.log"]
    assert entries(log.path)[-1]["object"] == "number 4"


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    """As `launcher key` and the gateway write to one file."""

    def write(name: str) -> None:
        log = AuditLog(tmp_path / "audit.log")
        for number in range(100):
            log.record(name, "act", str(number))

    writers = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = entries(tmp_path / "audit.log")
    assert sorted((entry["actor"], int(entry["object"])) for entry in found) == [
        (name, number) for name in "abcd" for number in range(100)
    ]


def test_a_disk_that_takes_nothing_stops_no_act(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.ERROR, "launcher.gateway"):
        assert not AuditLog(tmp_path / "file" / "audit.log").record("a", "key.revoke", "bob")
    assert '"object": "bob"' in caplog.text
