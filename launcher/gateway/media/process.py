"""One worker process as the gateway holds it: started, given a file at a time, ended when it takes too long."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

from launcher.gateway.media.worker import LENGTH, LENGTHS
from launcher.gateway.refusal import Refusal, Refused

log = logging.getLogger("launcher.gateway")
START_S = 60.0  # until it says that it is ready; usually a fifth of a second
MAX_ANSWER = 256 * 1024 * 1024
RETRY_AFTER_S = 1.0
SOURCE = Path(__file__).parents[3]  # where the launcher package is
# What Python and the decoders need of our environment; secrets stay out of a process that reads hostile files.
PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")
# Libraries that start threads or keep memory for them would take it from the files. A picture's megabytes are not given back
# to the system after each one: getting them anew is a quarter of the time that it takes.
SETTINGS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"} | {
    "MALLOC_MMAP_THRESHOLD_": str(16 * 1024 * 1024), "MALLOC_TRIM_THRESHOLD_": str(64 * 1024 * 1024),
}  # fmt: skip
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)


class WorkerProcess(asyncio.Protocol):
    """``on_free`` is called when it can take a file: once it is ready, and after each answer. Written by the event loop."""

    def __init__(self, on_free: Callable[[WorkerProcess], None], cpu_s: float, wall_s: float) -> None:
        self.is_ready = self.is_alive = False
        self._on_free, self._cpu_s, self._wall_s = on_free, cpu_s, wall_s
        self._answer: asyncio.Future[bytes] | None = None
        self._received = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._was_slow = False
        self._what = ""
        self._process: Process
        self._handle = -1  # a pidfd: asyncio's kill() also collects the status, which its own watcher then misses
        self._link: asyncio.WriteTransport

    @classmethod
    async def start(
        cls, on_free: Callable[[WorkerProcess], None], memory_bytes: int, cpu_s: float, wall_s: float
    ) -> WorkerProcess:
        """Starts a process, which is not ready yet. Raises OSError where the system has no room for it."""
        ours, theirs = socket.socketpair()
        with theirs:
            argv = (sys.executable, "-P", "-m", "launcher.gateway.media.worker")
            numbers = (str(theirs.fileno()), str(memory_bytes), str(cpu_s))
            environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ} | SETTINGS
            environment["PYTHONPATH"] = os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
            try:
                process = await asyncio.create_subprocess_exec(
                    *argv, *numbers, stdin=DEVNULL, stdout=DEVNULL, pass_fds=[theirs.fileno()], env=environment,
                    start_new_session=True,  # Ctrl+C in the terminal is for the gateway to act on
                )  # fmt: skip
            except BaseException:
                ours.close()
                raise
        loop = asyncio.get_running_loop()
        worker = cls(on_free, cpu_s, wall_s)
        worker._process, worker.is_alive = process, True
        with suppress(ProcessLookupError):  # it has ended already
            worker._handle = os.pidfd_open(process.pid)
        worker._limit(START_S)
        ours.setblocking(False)
        await loop.create_unix_connection(lambda: worker, sock=ours)
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, what: str, asked: bytes, data: bytes) -> asyncio.Future[bytes]:
        """Gives it a task with its job, and the file: a picture, a clip. The future has the answer, or Refused if it ended."""
        assert self._answer is None, "a worker has one file at a time"
        self._what = what
        self._answer = asyncio.get_running_loop().create_future()
        self._limit(self._wall_s)
        self._link.write(LENGTHS.pack(len(asked), len(data)) + asked)
        self._link.write(data)
        return self._answer

    def hurry(self, seconds: float) -> None:
        """Nobody waits for the answer any more: so long may it still take."""
        if self._timer is not None and self._timer.when() > asyncio.get_running_loop().time() + seconds:
            self._limit(seconds)

    def kill(self) -> None:
        self.is_alive = False
        if self._handle >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    async def ended(self) -> str:
        """Waits for its end, which it tells to whoever waits for an answer; what ended it, in words."""
        code = await self._process.wait()
        if self._handle >= 0:
            os.close(self._handle)
        self.is_alive, self._handle = False, -1
        self._link.abort()
        self._limit(None)
        refusal = self._refusal(code)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Refused(refusal))
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._link = cast(asyncio.WriteTransport, transport)  # uvloop's own is none

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) < LENGTH.size:
            return
        (length,) = LENGTH.unpack_from(self._received)
        if length > MAX_ANSWER or (self._answer is None and (self.is_ready or length)):
            log.error("a media worker (pid %d) sent what no worker sends; it is killed", self.pid)
            self.kill()
        elif len(self._received) == LENGTH.size + length:
            answer, self._received = bytes(self._received[LENGTH.size :]), bytearray()
            self._done(answer)

    def connection_lost(self, error: Exception | None) -> None:
        self.kill()  # without its link it is of no use; usually it has ended

    def _done(self, encoded: bytes) -> None:
        self._limit(None)
        self.is_ready = True
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(encoded)
        self._on_free(self)

    def _limit(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._was_slow = True
        self.kill()

    def _refusal(self, code: int) -> Refusal:
        """What is told to whoever sent the file that it had when it ended."""
        what = self._what
        if code == -signal.SIGPROF:
            heavy = f"The {what} takes more than {self._cpu_s:g} s of a processor to decode. Send a smaller one."
            return Refusal(400, f"{what}_too_heavy", heavy)
        if code < 0 and -code in CRASHES:
            return Refusal(400, f"{what}_broken", f"The {what}'s decoder crashed on it: the file is damaged.")
        if self._was_slow:
            why = f"within {self._wall_s:g} s: the machine is busy"
        else:
            why = "since the process that had it was ended from outside, perhaps for want of memory"
        return unavailable(f"The {what} was not decoded {why}. Send it again.")

    def __repr__(self) -> str:
        state = "busy" if self._answer else "idle" if self.is_ready else "starting"
        return f"<WorkerProcess pid={self.pid} {state if self.is_alive else 'ended'}>"


def unavailable(message: str) -> Refusal:
    """503: it is not the file's fault."""
    return Refusal(503, "not_decoded", message, retry_after_s=RETRY_AFTER_S)
