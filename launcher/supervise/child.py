"""One engine process under its guard: started, read line by line, asked to stop, killed with everything below it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GUARD = Path(__file__).with_name("guard.py")
LONGEST_LINE = 64 * 1024  # bytes; a longer one is cut into pieces of this size, so that no engine can fill our memory

# Gets a line and whether it is transient: a progress bar that the next line overwrites (it ended in a carriage return).
LineReader = Callable[[str, bool], None]


@dataclass(frozen=True)
class Exit:
    """How a process ended: one of ``code`` and ``signal`` (a number) is set."""

    code: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by {signal.Signals(self.signal).name}"
        return f"exited with code {self.code}"


class Child:
    """A running engine. ``pid`` is the engine's own; ``guard_pid`` that of the process which watches it."""

    def __init__(self, guard: asyncio.subprocess.Process, pid: int, status: asyncio.StreamReader) -> None:
        self.pid = pid
        self.guard_pid = guard.pid
        self._guard = guard
        self._status = status
        self._lines: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Child pid={self.pid} guard={self.guard_pid}>"

    @classmethod
    async def spawn(
        cls, argv: Sequence[str], env: Mapping[str, str], on_line: LineReader, cwd: Path | None = None
    ) -> Child:
        """Start ``argv`` with ``env`` as its whole environment; ``on_line`` gets each line of its output."""
        status_read, status_write = os.pipe()
        try:
            guard = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                str(GUARD),
                str(status_write),
                "--",
                *argv,
                env=dict(env),
                cwd=cwd,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(status_write,),
            )
        finally:
            os.close(status_write)
        status = await _reader(status_read)
        first = await status.readline()  # the guard is our own and answers in milliseconds
        if not first.startswith(b"pid "):
            raise RuntimeError(f"the guard of {argv[0]} did not start: {first!r}")
        child = cls(guard, int(first.split()[1]), status)
        child._lines = asyncio.create_task(child._read_lines(on_line))
        return child

    async def _read_lines(self, on_line: LineReader) -> None:
        assert self._guard.stdout is not None
        pending = b""
        while chunk := await self._guard.stdout.read(LONGEST_LINE):
            *pieces, pending = re.split(rb"([\r\n])", pending + chunk)
            for text, end in zip(pieces[::2], pieces[1::2], strict=True):
                if text:
                    on_line(text.decode("utf-8", "replace"), end == b"\r")
            if len(pending) > LONGEST_LINE:
                on_line(pending.decode("utf-8", "replace"), False)
                pending = b""
        if pending:
            on_line(pending.decode("utf-8", "replace"), False)

    async def wait(self) -> Exit:
        """Until the engine and all its descendants are gone and its last line has been read."""
        last = b""
        while line := await self._status.readline():
            last = line
        await self._guard.wait()
        words = last.split()
        if len(words) != 2 or words[0] not in (b"exit", b"signal"):
            # the guard itself was killed: PR_SET_PDEATHSIG took the engine, this takes its workers
            await end_session(self.pid)
            words = [b"signal", b"9"]
        if self._lines is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._lines, 2.0)
        number = int(words[1])
        return Exit(code=number) if words[0] == b"exit" else Exit(signal=number)

    def terminate(self) -> None:
        """Ask the engine to stop (SIGTERM to its own process)."""
        with contextlib.suppress(ProcessLookupError):
            self._guard.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the engine and all below it at once; `wait` returns when that is done."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._guard.pid, signal.SIGCONT)  # a stopped guard could not act


async def _reader(fd: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb"))
    return reader


def start_time(pid: int) -> int | None:
    """When the kernel started ``pid``, in clock ticks since boot: with it a pid names one process for ever. None: gone."""
    try:
        after_command = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if after_command[0] in (b"Z", b"X") else int(after_command[19])


async def end_session(session: int) -> None:
    """Kill every process of a session and wait until the last one has ended; a kill only asks for that."""
    while members := kill_session(session):  # again, for one may have forked meanwhile
        for pid in members:
            await _ended(pid)


async def _ended(pid: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(fd, ended.set)
        await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)


def kill_session(session: int) -> list[int]:
    """SIGKILL every process of a session (an engine's is numbered as its pid); the pids that were there."""
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            after_command = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            if int(after_command[3]) == session and after_command[0] != b"Z":
                os.kill(int(entry.name), signal.SIGKILL)
                members.append(int(entry.name))
    return members
