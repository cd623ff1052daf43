"""`launcher up` in the foreground: prepare, run on one event loop, act on signals."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Iterator

import uvloop

from launcher.cli.audience import NotifyingAudience, PlainAudience, TerminalAudience
from launcher.cli.output import err_console
from launcher.errors import EXIT_INTERRUPTED, LauncherError
from launcher.profile.load import LoadedProfile
from launcher.supervise.rundir import RunDir
from launcher.up.deployment import Deployment
from launcher.up.prepare import make_checked_plan, prepare
from launcher.up.snapshot import Audience

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve(loaded: LoadedProfile, *, force: bool, notify_fd: int | None) -> None:
    """Run until told to stop; exits with 130 when a second Ctrl+C cut it short."""
    with audience_for(notify_fd) as audience:
        stopped_at_once = prepare_and_run(loaded, audience, force)
    if stopped_at_once:
        sys.exit(EXIT_INTERRUPTED)


@contextlib.contextmanager
def audience_for(notify_fd: int | None) -> Iterator[Audience]:
    """Who is told what happens: a waiting parent, a terminal, or whoever reads stderr."""
    if notify_fd is not None:
        parent = NotifyingAudience(notify_fd)
        try:
            yield parent
        except LauncherError as error:
            parent.tell(error=error.message, hint=error.hint, exit_code=error.exit_code)
            raise
    elif sys.stderr.isatty():
        terminal = TerminalAudience(err_console())
        try:
            yield terminal
        finally:
            terminal.close()
    else:
        yield PlainAudience()


def prepare_and_run(loaded: LoadedProfile, audience: Audience, force: bool) -> bool:
    """Claim the name, plan, prepare, run; whether it was told twice to stop."""
    rundir = RunDir.claim(loaded.profile.name)
    for number in (signal.SIGTERM, signal.SIGHUP):  # until the loop has its own: `down` during a download ends it
        signal.signal(number, signal.default_int_handler)
    try:
        if rundir.stale_pid is not None:
            audience.said(
                f"an earlier launcher of this name (pid {rundir.stale_pid}) was killed: "
                f"took over its run directory, ended {len(rundir.cleaned)} processes that it left"
            )
        rundir.write({"schema_version": 1, "pid": os.getpid(), "profile": str(loaded.path), "state": "preparing"})
        plan = make_checked_plan(loaded, force=force)
        audience.said(f"plan: {plan.summary}")
        for finding in plan.findings:
            if finding.severity != "note":
                audience.said(
                    f"{finding.severity}: {finding.message}" + (f" → {finding.remedy}" if finding.remedy else "")
                )
        prepared = prepare(loaded, plan, audience.said)
        deployment = Deployment(loaded, prepared, rundir, audience)
        collect_garbage_seldom()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(deployment, audience))
        return deployment.stopped_at_once
    finally:
        rundir.release()


def collect_garbage_seldom() -> None:
    """A request leaves no cycles behind (tests/gateway/test_garbage.py), so there is little to be looked for.

    What stays for good is not looked at any more, and the rest every 50,000 objects instead of 700.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def run(deployment: Deployment, audience: Audience) -> None:
    """The deployment with its signals; on a terminal, with a status line that moves."""
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, deployment.request_stop)
    fresh = None
    if isinstance(audience, TerminalAudience):
        fresh = loop.create_task(audience.keep_fresh(deployment.snapshot))
    try:
        await deployment.run()
    finally:
        if fresh is not None:
            fresh.cancel()
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
