"""The access log: a line a request, rotated, and never the reason that something stops."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from launcher.gateway import access
from launcher.gateway.access import BATCH, MAX_TEXT, MAX_WAITING, AccessEntry, AccessLog


def entry(number: int = 0, **more: Any) -> AccessEntry:
    now = asyncio.get_running_loop().time()
    path = more.pop("path", b"/v1/chat/completions")
    made = AccessEntry(now, f"r-{number}".encode(), b"POST", path, 200, "served")
    for name, value in more.items():
        setattr(made, name, value)
    return made


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@asynccontextmanager
async def opened(path: Path, max_size: int = 1 << 20, keep: int = 3) -> AsyncIterator[AccessLog]:
    log = AccessLog(path, max_size=max_size, keep=keep)
    try:
        yield log
    finally:
        await log.close()


async def test_a_line_has_what_happened(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    async with opened(path) as log:
        log.add(
            entry(
                7, key="team-a", model="m", mode="balanced", priority="high", stream=True, image_tokens=2,
                prompt_tokens_priced=128.6, prompt_tokens=130, output_tokens=64, pieces=64, queue_ms=0.0123456,
                ttft_ms=0.25, e2e_ms=1.5, replica=0, retries=1, bytes_in=10, bytes_out=20, receive_ms=0.0021, media_ms=0.0305, client="127.0.0.1",
            )
        )  # fmt: skip
        before = datetime.now(UTC)
    (line,) = lines(path)
    ended = datetime.fromisoformat(line.pop("time"))
    assert abs((ended - before).total_seconds()) < 5
    assert line == {
        "id": "r-7", "method": "POST", "path": "/v1/chat/completions", "status": 200, "outcome": "served",
        "client": "127.0.0.1", "key": "team-a", "model": "m", "mode": "balanced", "priority": "high", "stream": True,
        "image_tokens": 2, "prompt_tokens_priced": 128, "prompt_tokens": 130, "output_tokens": 64, "pieces": 64,
        "queue_ms": 12.34, "ttft_ms": 250.0, "e2e_ms": 1500.0, "replica": 0, "retries": 1, "bytes_in": 10,
        "bytes_out": 20,
        "receive_ms": 2.1,
        "media_ms": 30.5,
    }  # fmt: skip
    assert path.read_text().endswith('Z"' + path.read_text().split('Z"', 1)[1])
    assert path.stat().st_mode & 0o007 == 0


async def test_the_time_is_utc_with_milliseconds(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    finish = access._Finisher()
    one = AccessEntry(1.2345, b"r", b"GET", b"/", 200, "served")
    finish(one, 1_795_300_000.0)
    assert one.time == "2026-11-21T22:26:41.234Z"
    other = AccessEntry(2.0, b"r", b"GET", b"/", 200, "served")
    finish(other, 1_795_300_000.0)
    assert other.time == "2026-11-21T22:26:42.000Z"
    assert not path.exists()


async def test_what_a_client_chose_can_neither_break_a_line_nor_fill_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    async with opened(path) as log:
        log.add(entry(path=b'/v1/\xff"\n\\?api_key=sk-secret', model="m" * 5000, id=b'"},{"id":"forged' + b"x" * 5000))
    text = path.read_text()
    (line,) = lines(path)
    assert line["path"] == '/v1/ÿ"\n\\'
    assert line["id"].startswith('"},{"id":"forged')
    assert (len(line["id"]), len(line["model"])) == (MAX_TEXT, MAX_TEXT)
    assert "sk-secret" not in text


async def test_lines_come_by_themselves_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "FLUSH_S", 0.001)
    path = tmp_path / "logs" / "access.log"
    async with opened(path) as log:
        log.add(entry(0))
        assert log._timer is not None
        struck = asyncio.Event()
        asyncio.get_running_loop().call_at(log._timer.when() + 0.005, struck.set)
        await struck.wait()
        assert not log._entries
        for number in range(1, 2 * BATCH + 10):
            log.add(entry(number))
    assert [line["id"] for line in lines(path)] == [f"r-{number}" for number in range(2 * BATCH + 10)]


async def test_a_full_batch_does_not_wait_for_the_timer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "FLUSH_S", 3600.0)
    async with opened(tmp_path / "access.log") as log:
        for number in range(BATCH - 1):
            log.add(entry(number))
        assert repr(log).endswith(f"waiting={BATCH - 1} dropped=0>")
        log.add(entry())
        assert repr(log).endswith("waiting=0 dropped=0>")


@pytest.mark.parametrize("keep", [0, 1, 2])
async def test_rotation_keeps_whole_lines_and_so_many_files(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "access.log"
    async with opened(path, max_size=1000, keep=keep) as log:
        for number in range(40):
            log.add(entry(number))
            assert await log.written()
    names = sorted(os.listdir(tmp_path))
    assert names == ["access.log", *(f"access.log.{number}" for number in range(1, keep + 1))]
    for name in names:
        assert (tmp_path / name).stat().st_size <= 1000
        assert lines(tmp_path / name)
    assert [line["id"] for line in lines(path)][-1] == "r-39"
    if keep == 2:
        newest_first = [lines(path)[0], lines(tmp_path / "access.log.1")[0], lines(tmp_path / "access.log.2")[0]]
        times = [line["time"] for line in newest_first]
        assert times == sorted(times, reverse=True)


async def test_a_file_taken_away_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    async with opened(path) as log:
        log.add(entry(1))
        assert await log.written()
        path.rename(tmp_path / "taken")
        log.add(entry(2))
        assert await log.written()
        path.unlink()
        log.add(entry(3))
    assert [line["id"] for line in lines(path)][-1] == "r-3"
    assert "r-1" in (tmp_path / "taken").read_text()
    assert "r-2" not in (tmp_path / "taken").read_text()


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: the kernel's answer is then an error, as from a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


async def test_a_full_disk_loses_lines_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "access.log"
    async with opened(path) as log:
        log.add(entry(1))
        assert await log.written()
        with small_disk(path.stat().st_size + 60):  # room for a part of a line
            for number in (2, 3, 4):
                log.add(entry(number))
                assert await log.written()
        assert log.dropped >= 3
        log.add(entry(5))
        assert await log.written()
    ids = [line["id"] for line in lines(path)]
    assert ids == ["r-1", "r-5"]  # whole lines only
    said = [record.getMessage() for record in caplog.records]
    assert [text for text in said if "cannot be written" in text] == [
        f"access log: {path} cannot be written: File too large; lines are dropped"
    ]
    assert len([text for text in said if "can be written again" in text]) == 1


async def test_a_folder_that_cannot_be_is_no_reason_to_fail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        async with opened(tmp_path / "logs" / "access.log") as log:
            log.add(entry())
    assert log.dropped == 1
    assert "cannot be written: File exists" in caplog.text


async def test_a_disk_that_hangs_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "CLOSE_S", 0.01)
    path = tmp_path / "access.log"
    os.mkfifo(path)  # opening it waits for a reader, as a dead network disk would
    log = AccessLog(path, max_size=1000, keep=1)
    for number in range((MAX_WAITING + 5) * BATCH):
        log.add(entry(number))
    assert log.dropped >= 3 * BATCH
    await log.close()
    assert log._thread.is_alive()
    got = await asyncio.to_thread(path.read_bytes)  # opens it, and reads until the thread has closed it
    assert got.count(b"\n") == (MAX_WAITING + 5) * BATCH - log.dropped
    assert not await asyncio.to_thread(log._thread.join, 20)


async def test_close_ends_the_thread_and_loses_nothing(tmp_path: Path) -> None:
    before = threading.active_count()
    async with opened(tmp_path / "access.log") as log:
        log.add(entry())
        assert not (tmp_path / "access.log").exists()
    assert len(lines(tmp_path / "access.log")) == 1
    assert not log._thread.is_alive()
    assert threading.active_count() <= before + 1  # asyncio's own, which waited for it
