"""A process that decodes what clients send, one file at a time, so that a hostile one harms nothing but this process.

``python -m launcher.gateway.media.worker FD MEMORY_BYTES CPU_S``, started by pool.py. On the socket FD come two lengths, a
job (msgpack) and the file's bytes; a length and an answer (msgpack) go back. An empty answer says that it is ready.

- Memory beyond that of the start is limited (RLIMIT_AS): more raises MemoryError, or ends the process.
- Each file has its CPU time: the kernel ends the process with SIGPROF.
- It ends when its parent does: the socket ends, and in the middle of a file PR_SET_PDEATHSIG does it.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from typing import Any

import msgspec

from launcher.gateway.media.jobs import Bug

LENGTHS = struct.Struct(">II")  # of the task with its job, of the data
LENGTH = struct.Struct(">I")  # of the answer
PR_SET_PDEATHSIG = 1
# task → module, its function (data, job) → answer, its type of a job
TASKS = {
    "picture": ("launcher.gateway.media.decode", "shrink", "Job"),
    "clip": ("launcher.gateway.media.audio", "cut", "AudioJob"),
}
Task = tuple[Callable[[memoryview, Any], Any], "msgspec.msgpack.Decoder[Any]"]


def main() -> None:
    descriptor, memory_bytes, cpu_s = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    die_with_parent()
    link = socket.socket(fileno=descriptor)
    tasks = {name: load(*where) for name, where in TASKS.items()}
    limit_memory(memory_bytes)
    be_silent()
    link.sendall(LENGTH.pack(0))
    encode = msgspec.msgpack.Encoder().encode
    while lengths := receive(link, LENGTHS.size):
        job_length, data_length = LENGTHS.unpack(lengths)
        asked = receive(link, job_length + data_length)
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        answer = encode(work(tasks, asked[:job_length], asked[job_length:]))
        signal.setitimer(signal.ITIMER_PROF, 0)
        asked.release()
        link.sendall(LENGTH.pack(len(answer)))
        link.sendall(answer)


def load(module: str, function: str, job: str) -> Task:
    """Imports what a task needs, before there is a limit on memory."""
    found = importlib.import_module(module)
    return getattr(found, function), msgspec.msgpack.Decoder(getattr(found, job))


def work(tasks: dict[str, Task], asked: memoryview, data: memoryview) -> Any:
    """The task's answer, or a Bug."""
    try:
        name, job = msgspec.msgpack.decode(asked, type=tuple[str, msgspec.Raw])
        function, decoder = tasks[name]
        return function(data, decoder.decode(job))
    except Exception:
        return Bug(traceback.format_exc())


def receive(link: socket.socket, size: int) -> memoryview:
    """So many bytes; none if the socket has ended."""
    view = memoryview(bytearray(size))
    at = 0
    while at < size:
        count = link.recv_into(view[at:])
        if not count:
            return memoryview(b"")
        at += count
    return view


def die_with_parent() -> None:
    """SIGKILL at the parent's end, also while a file is being decoded."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended meanwhile
        sys.exit()


def be_silent() -> None:
    """Decoders tell of each damaged file on standard error: who sends many would fill the log. Bugs go back as answers."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)


def limit_memory(memory_bytes: int) -> None:
    """So much beyond what there is now. And no core files of other people's pictures."""
    with open("/proc/self/statm", "rb") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory_bytes, mapped + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
