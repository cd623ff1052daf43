"""The control app as a process of its own: started, watched and restarted; inference goes on without it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from launcher.supervise.child import Child, Exit
from launcher.supervise.restart import RestartPolicy, recent_crashes, restart_delay_s

log = logging.getLogger("launcher.control")
# It is never given up: without it only /api is missing, and what ended it may pass.
POLICY = RestartPolicy(backoff_s=0.5, max_backoff_s=30.0, budget=sys.maxsize, window_s=600.0)
STOP_S = 3.0
# What Python and the app need of our environment; secrets that engines need stay out of the process that browsers reach.
PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
SOURCE = Path(__file__).parents[2]  # where the launcher package is


class ControlProcess:
    """Runs ``python -m launcher.control`` on a run directory. Written by the task that runs it only."""

    def __init__(
        self,
        folder: Path,
        *,
        keys_file: Path | None = None,
        audit_log: Path | None = None,
        policy: RestartPolicy = POLICY,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """``on_change`` is called after each start and each end."""
        self.child: Child | None = None
        self.restarts = 0
        self.last_failure = ""
        self._argv = command(folder, keys_file, audit_log)
        self._policy, self._on_change = policy, on_change

    async def run(self) -> None:
        """Keeps it running until cancelled; then it has ended when this returns."""
        loop = asyncio.get_running_loop()
        ends: tuple[float, ...] = ()
        while True:
            try:
                ended = str(await self._live())
            except (OSError, RuntimeError) as error:  # no process could be made
                ended = f"could not be started: {error}"
            now = loop.time()
            ends = (*recent_crashes(ends, now, self._policy), now)
            delay_s = restart_delay_s(ends, self._policy)
            assert delay_s is not None, "the budget has no end"
            self.restarts += 1
            self.last_failure = ended
            log.warning("the control app %s; it is started again in %g s; inference goes on", ended, delay_s)
            self._on_change()
            await asyncio.sleep(delay_s)

    async def _live(self) -> Exit:
        """One life of it; cancelled, it is ended first."""
        starting = asyncio.ensure_future(Child.spawn(self._argv, environment(os.environ), self._said))
        try:
            self.child = child = await asyncio.shield(starting)
        except asyncio.CancelledError:  # a process without its Child could not be ended
            await _end(await starting)
            raise
        self._on_change()
        try:
            return await child.wait()
        except asyncio.CancelledError:
            await _end(child)
            raise
        finally:
            self.child = None

    def _said(self, line: str, transient: bool) -> None:
        log.info("%s", line)

    def __repr__(self) -> str:
        return f"<ControlProcess pid={self.child.pid if self.child else None} restarts={self.restarts}>"


async def _end(child: Child) -> None:
    """Politely, then not."""
    child.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()


def command(folder: Path, keys_file: Path | None, audit_log: Path | None) -> Sequence[str]:
    """Its command line."""
    argv = [sys.executable, "-m", "launcher.control", str(folder)]
    for option, path in (("--keys-file", keys_file), ("--audit-log", audit_log)):
        if path is not None:
            argv += [option, str(path)]
    return argv


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Its environment: nothing that is not needed."""
    kept = {name: inherited[name] for name in PASSED_ON if name in inherited}
    path = [str(SOURCE), *filter(None, [inherited.get("PYTHONPATH")])]  # what we were found with, the app is found with
    return {**kept, "PYTHONPATH": os.pathsep.join(path)}
