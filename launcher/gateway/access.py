"""The access log: one line of JSON for each request, who asked, what it cost, how long it took; never what was said.

A request only leaves an entry in a list. Twice a second, or after so many entries, they go to a thread of their own,
which turns them into lines and writes them: a slow disk makes no request wait, a full one loses lines and says so once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import msgspec

log = logging.getLogger("launcher.gateway")
FLUSH_S = 0.5
BATCH = 256  # entries handed over at once; the thread holds the interpreter for about 1 ms to make them into lines
MAX_WAITING = 64  # batches that wait for the disk; more are dropped
CLOSE_S = 2.0  # how long close() waits for the disk
MAX_TEXT = 256  # characters of what a client may choose: path, model, request id


class AccessEntry(msgspec.Struct, gc=False, omit_defaults=True):
    """One request that ended; what was not is left out of its line.

    Fill it by position, in the hot path: by name it takes 3 µs longer. Times are the event loop's, in seconds; bytes
    are as they came. The lines have ``time`` in UTC, and milliseconds.
    """

    time: float | str  # when it ended
    id: bytes | str
    method: bytes | str
    path: bytes | str  # a query is cut off: people put keys there
    status: int
    outcome: str  # served, refused, evicted, cancelled, failed
    reason: str = ""  # of a refusal, an eviction or a failure
    client: str = ""  # its address
    key: str = ""  # its name
    model: str = ""
    mode: str = ""
    priority: str = ""
    stream: bool = False
    image_tokens: int = 0
    prompt_tokens_priced: float = 0
    prompt_tokens: int = 0  # as the engine counted them; 0: it did not say
    output_tokens: int = 0
    pieces: int = 0  # of a stream; about its output tokens where the engine does not count
    queue_ms: float = 0.0  # given in seconds, as are the next two
    ttft_ms: float = 0.0
    e2e_ms: float = 0.0
    replica: int = -1  # -1: none
    retries: int = 0
    resumed: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    receive_ms: float = 0.0  # given in seconds, as is the next: a large body on its way
    media_ms: float = 0.0  # pictures and clips fetched, decoded and made smaller


class AccessLog:
    """Where entries go. ``add`` and ``close`` belong to the event loop, the file to a thread.

    ``max_size`` (bytes) and ``keep`` rotate the file as logging.max_size and logging.keep do the others.
    """

    def __init__(self, path: Path | None, *, max_size: int, keep: int) -> None:
        """``path`` None: the standard output, where a container's logs are looked for."""
        self.path = path
        self._file = _Stdout() if path is None else _LogFile(path, max_size, keep)
        self._entries: list[AccessEntry] = []
        self._batches: SimpleQueue[tuple[list[AccessEntry], float] | threading.Event | None] = SimpleQueue()
        self._timer: asyncio.TimerHandle | None = None
        self._too_many = 0
        self._thread = threading.Thread(target=self._work, name="access-log", daemon=True)
        self._thread.start()

    def add(self, entry: AccessEntry) -> None:
        """Takes a request down; it is on the disk within about FLUSH_S."""
        entries = self._entries
        entries.append(entry)
        if len(entries) >= BATCH:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Hands what there is to the thread, or drops it where the disk is far behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        entries, self._entries = self._entries, []
        if not entries:
            return
        if self._batches.qsize() >= MAX_WAITING:
            self._too_many += len(entries)
            return
        self._batches.put((entries, time.time() - asyncio.get_running_loop().time()))

    @property
    def dropped(self) -> int:
        """How many lines could not be written."""
        return self._too_many + self._file.lost

    async def written(self) -> bool:
        """Waits until all entries so far are on the disk, or lost; False if that takes longer than CLOSE_S."""
        self.flush()
        done = threading.Event()
        self._batches.put(done)
        return await asyncio.to_thread(done.wait, CLOSE_S)

    async def close(self) -> None:
        """Writes what is left; a disk that does not answer within CLOSE_S is not waited for."""
        self.flush()
        self._batches.put(None)
        await asyncio.to_thread(self._thread.join, CLOSE_S)

    def _work(self) -> None:
        encode, finish = msgspec.json.Encoder().encode_lines, _Finisher()
        while (batch := self._batches.get()) is not None:
            if isinstance(batch, threading.Event):
                batch.set()
                continue
            entries, epoch = batch
            try:
                for entry in entries:
                    finish(entry, epoch)
                self._file.write(encode(entries), len(entries))
            except Exception:  # a bug of ours must cost lines only
                self._file.lost += len(entries)
                log.exception("access log: lines were lost")
        self._file.close()

    def __repr__(self) -> str:
        return f"<AccessLog {self.path or 'stdout'} waiting={len(self._entries)} dropped={self.dropped}>"


class _Finisher:
    """From what was cheap to note to what people read. Used by the thread."""

    def __init__(self) -> None:
        self._second, self._second_text = -1, ""

    def __call__(self, entry: AccessEntry, epoch: float) -> None:
        """``epoch`` is the event loop's zero in wall-clock seconds."""
        ended_ms = int((entry.time + epoch) * 1000)  # type: ignore[operator]
        second = ended_ms // 1000
        if second != self._second:  # a date costs more than all the rest
            self._second, self._second_text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        entry.time = f"{self._second_text}.{ended_ms % 1000:03d}Z"
        entry.id = entry.id.decode("latin-1")[:MAX_TEXT]  # type: ignore[union-attr]
        entry.method = entry.method.decode("latin-1")[:MAX_TEXT]  # type: ignore[union-attr]
        entry.path = entry.path.partition(b"?")[0].decode("latin-1")[:MAX_TEXT]  # type: ignore[union-attr, arg-type]
        if entry.model and not entry.model.isascii():
            entry.model = (
                entry.model[:MAX_TEXT].encode("utf-8", "replace").decode()
            )  # lone surrogates cannot be written
        elif len(entry.model) > MAX_TEXT:
            entry.model = entry.model[:MAX_TEXT]
        entry.queue_ms = int(entry.queue_ms * 1e5) / 100
        entry.ttft_ms = int(entry.ttft_ms * 1e5) / 100
        entry.e2e_ms = int(entry.e2e_ms * 1e5) / 100
        if entry.receive_ms or entry.media_ms:
            entry.receive_ms = int(entry.receive_ms * 1e5) / 100
            entry.media_ms = int(entry.media_ms * 1e5) / 100
        entry.prompt_tokens_priced = int(entry.prompt_tokens_priced)


class _LogFile:
    """A file that is added to and rotated by size. Used by one thread; ``lost`` may be read by others."""

    def __init__(self, path: Path, max_size: int, keep: int) -> None:
        self._path, self._max_size, self._keep = path, max_size, keep
        self._fd = -1
        self._failed = False
        self.lost = 0

    def write(self, data: bytes, lines: int) -> None:
        """Adds whole lines, or none of them."""
        try:
            self._append(data)
        except OSError as error:
            self.lost += lines
            if not self._failed:
                log.warning("access log: %s cannot be written: %s; lines are dropped", self._path, error.strerror)
            self._failed = True
        else:
            if self._failed:
                log.warning("access log: %s can be written again; %d lines were dropped", self._path, self.lost)
            self._failed = False

    def _append(self, data: bytes) -> None:
        size = self._open()
        if size and size + len(data) > self._max_size:
            self._rotate()
            size = self._open()
        try:
            written = os.write(self._fd, data)
            if written < len(data):  # the disk has just become full: the rest says so
                os.write(self._fd, data[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, size)  # no half a line
            raise

    def _open(self) -> int:
        """Sees to it that the file is open and still the one at its path; its size."""
        if self._fd >= 0:
            there = self._path.stat() if self._path.exists() else None
            mine = os.fstat(self._fd)
            if there is not None and (there.st_ino, there.st_dev) == (mine.st_ino, mine.st_dev):
                return mine.st_size
            self.close()  # moved or deleted by somebody
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        return os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        """access.log becomes .1, .1 becomes .2 …; the one after the last goes."""
        self.close()
        if not self._keep:
            self._path.unlink()
            return
        for number in range(self._keep - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            if older.exists():
                older.replace(self._path.with_name(f"{self._path.name}.{number + 1}"))
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Stdout(_LogFile):
    """The standard output, which is somebody else's to rotate and to close."""

    def __init__(self) -> None:
        super().__init__(Path("the standard output"), max_size=0, keep=0)

    def _append(self, data: bytes) -> None:
        while data:
            data = data[os.write(1, data) :]

    def close(self) -> None:
        pass
