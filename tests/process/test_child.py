"""A guarded process: its lines, its end, and that nothing of it is left behind."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from launcher.supervise.child import LONGEST_LINE, Child, Exit, start_time

# Starts a worker in a session of its own, as far from its parent as a process can go, prints both pids, and waits.
FAMILY = """
import os, signal, sys
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(write, str(os.getpid()).encode())
    signal.pause()
print('worker', os.read(read, 16).decode(), flush=True)
{then}
"""


class Lines:
    """Collects a child's output; ``of`` waits for a line."""

    def __init__(self) -> None:
        self.all: list[tuple[str, bool]] = []
        self._more = asyncio.Event()

    def __call__(self, line: str, transient: bool) -> None:
        self.all.append((line, transient))
        self._more.set()

    async def of(self, wanted: Callable[[str], bool]) -> str:
        while True:
            for line, _ in self.all:
                if wanted(line):
                    return line
            self._more.clear()
            await self._more.wait()


async def spawn(code: str) -> tuple[Child, Lines]:
    lines = Lines()
    return await Child.spawn([sys.executable, "-u", "-c", code], os.environ, lines), lines


async def family(then: str = "signal.pause()") -> tuple[Child, int]:
    child, lines = await spawn(FAMILY.format(then=then))
    worker = int((await lines.of(lambda line: line.startswith("worker "))).split()[1])
    return child, worker


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        ("pass", Exit(code=0)),
        ("raise SystemExit(3)", Exit(code=3)),
        ("import os; os.kill(os.getpid(), 11)", Exit(signal=11)),
    ],
)
async def test_how_it_ended(code: str, ended: Exit) -> None:
    child, _ = await spawn(code)
    assert await child.wait() == ended


async def test_a_command_that_does_not_exist() -> None:
    lines = Lines()
    child = await Child.spawn(["/no/such/python"], os.environ, lines)
    assert await child.wait() == Exit(code=127)
    assert lines.all == [("cannot start /no/such/python: No such file or directory", False)]


async def test_lines_and_progress_bars() -> None:
    child, lines = await spawn(r"import sys; sys.stdout.write('a\n 10%\r 20%\r\nlast')")
    await child.wait()
    assert lines.all == [("a", False), (" 10%", True), (" 20%", True), ("last", False)]


async def test_an_endless_line_is_cut() -> None:
    child, lines = await spawn(f"print('x' * {3 * LONGEST_LINE})")
    await child.wait()
    assert sum(len(line) for line, _ in lines.all) == 3 * LONGEST_LINE
    assert max(len(line) for line, _ in lines.all) <= 2 * LONGEST_LINE


async def test_kill_takes_workers_in_other_sessions_along() -> None:
    child, worker = await family()
    child.kill()
    assert await child.wait() == Exit(signal=9)
    assert start_time(worker) is None
    assert start_time(child.pid) is None


async def test_what_a_dead_engine_leaves_is_ended() -> None:
    child, worker = await family("sys.exit(0)")
    assert await child.wait() == Exit(code=0)
    assert start_time(worker) is None


async def test_terminate_reaches_the_engine_itself() -> None:
    child, lines = await spawn(
        "import signal, sys\nsignal.signal(15, lambda *a: sys.exit(7))\nprint('up')\nwhile True: signal.pause()"
    )
    await lines.of(lambda line: line == "up")
    child.terminate()
    assert await child.wait() == Exit(code=7)


async def test_a_stopped_engine_can_be_killed() -> None:
    child, worker = await family()
    os.kill(child.pid, signal.SIGSTOP)
    child.kill()
    assert await child.wait() == Exit(signal=9)
    assert start_time(worker) is None


async def test_the_guard_killed_takes_the_engine_along() -> None:
    child, _ = await spawn("import signal; print('up'); signal.pause()")
    os.kill(child.guard_pid, signal.SIGKILL)
    assert await child.wait() == Exit(signal=9)
    assert start_time(child.pid) is None


LAUNCHER = """
import asyncio, os, sys
from launcher.supervise.child import Child

async def main():
    child = await Child.spawn([sys.executable, "-u", "-c", sys.argv[1]], os.environ, lambda line, _: print(line, flush=True))
    print("child", child.pid, child.guard_pid, flush=True)
    await child.wait()

asyncio.run(main())
"""


def test_sigkill_of_the_launcher_leaves_nothing() -> None:
    argv = [sys.executable, "-c", LAUNCHER, FAMILY.format(then="signal.pause()")]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(word) for _ in range(2) for word in process.stdout.readline().split()[1:]]
    assert len(pids) == 3
    ends = {os.pidfd_open(pid) for pid in pids}  # readable when the process has ended
    process.kill()
    process.wait()
    while ends:
        ended, _, _ = select.select(ends, [], [], 20)
        assert ended, "something outlived the launcher"
        for end in ended:
            os.close(end)
        ends -= set(ended)
