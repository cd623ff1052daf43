"""A small process between the launcher and one engine, so that nothing of the engine outlives either of them.

Run as a file (``python -I -S guard.py STATUS_FD -- ARGV…``), standard library only: it starts in milliseconds.

- It adopts every orphan below it (PR_SET_CHILD_SUBREAPER), so that engine workers cannot slip away, whatever group or
  session they are in.
- Its standard input is a pipe that only the launcher holds: when the launcher dies, even by SIGKILL, the pipe ends and
  everything below is killed. A byte ``K`` on it asks for the same.
- SIGTERM and SIGINT are passed on to the engine's own process, once, so that it can drain.
- When the engine's process ends, what it left behind is killed; only then does the guard report and exit.

On STATUS_FD it writes ``pid N`` when the engine runs, ``exit CODE`` or ``signal NUMBER`` when all of it is gone.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LIBC = ctypes.CDLL(None, use_errno=True)


def descendants(root: int) -> list[int]:
    """Every live process below ``root``, by /proc."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stat:
                    after_command = stat.read().rpartition(b")")[2].split()
            except OSError:
                continue  # gone meanwhile
            if after_command[0] != b"Z":
                children.setdefault(int(after_command[1]), []).append(int(name))
    found: list[int] = []
    pending = [root]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found


def reap(engine: int) -> int | None:
    """Collect every child that has ended; the engine's wait status if it is among them."""
    status = None
    while True:
        try:
            pid, code = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == engine:
            status = code


def kill_all(engine: int) -> int | None:
    """SIGKILL everything below until nothing is left; the engine's wait status if it had not been collected before."""
    status = None
    while True:
        below = descendants(os.getpid())
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended = reap(engine)
        status = status if ended is None else ended
        if not below:
            return status
        select.select([], [], [], 0.01)  # the kernel needs a moment to tear a large process down


def start(argv: list[str], wakeup: int) -> int:
    """Fork the engine into a session of its own; it dies with this guard."""
    guard = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:  # it died before it could be tied to: nobody would ever tell
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.close(wakeup)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    try:
        os.execvpe(argv[0], argv, os.environ)
    except OSError as error:
        os.write(2, f"cannot start {argv[0]}: {error.strerror}\n".encode())
        os._exit(127)


def watch(engine: int, signals: int) -> int:
    """Wait for the engine's end or for the launcher's; the engine's wait status, with everything below it gone."""
    inputs = [0, signals]
    while True:
        readable, _, _ = select.select(inputs, [], [])
        if signals in readable:
            received = os.read(signals, 64)
            status = reap(engine)
            if status is not None:
                kill_all(engine)
                return status
            for number in received:
                if number in (signal.SIGTERM, signal.SIGINT):
                    os.kill(engine, number)
        if 0 in readable:
            order = os.read(0, 1)
            if order in (b"", b"K"):
                status = kill_all(engine)
                return signal.SIGKILL if status is None else status


def main() -> None:
    status_fd, argv = int(sys.argv[1]), sys.argv[3:]
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.setsid()  # Ctrl+C in the terminal is for the launcher to act on
    signals, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    os.set_inheritable(status_fd, False)
    engine = start(argv, wakeup)
    os.write(status_fd, b"pid %d\n" % engine)
    status = watch(engine, signals)
    said = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.waitstatus_to_exitcode(status)}"
    with contextlib.suppress(BrokenPipeError):
        os.write(status_fd, said.encode() + b"\n")


if __name__ == "__main__":
    main()
