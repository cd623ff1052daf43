"""`launcher up` in the foreground: prepare, run on one event loop, act on signals."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Iterator
from typing import Protocol

import uvloop

from launcher.cli.audience import NotifyingAudience, PlainAudience, TerminalAudience
from launcher.cli.output import err_console, with_version
from launcher.cli.plan import plan_data, planned_commands
from launcher.cli.systemd import Notifier, ServiceAudience
from launcher.engine.nodes import Node
from launcher.errors import EXIT_INTERRUPTED, LauncherError
from launcher.plan.plan import Plan
from launcher.profile.load import LoadedProfile
from launcher.supervise.rundir import RunDir
from launcher.up.deployment import Deployment, going_on_without
from launcher.up.following import Following, run_name
from launcher.up.prepare import make_checked_plan, prepare, prepare_model_and_build
from launcher.up.snapshot import Audience, Snapshot


class Running(Protocol):
    """What runs until a signal stops it: a deployment, or one part of it."""

    @property
    def stopped_at_once(self) -> bool: ...

    def request_stop(self) -> None: ...

    async def run(self) -> None: ...

    def snapshot(self) -> Snapshot: ...


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve(loaded: LoadedProfile, *, force: bool, notify_fd: int | None, node: Node | None, once: bool) -> None:
    """Run until told to stop; exits with 130 when a second Ctrl+C cut it short."""
    with audience_for(notify_fd) as audience:
        stopped_at_once = prepare_and_run(loaded, audience, force, node, once)
    if stopped_at_once:
        sys.exit(EXIT_INTERRUPTED)


@contextlib.contextmanager
def audience_for(notify_fd: int | None) -> Iterator[Audience]:
    """Who is told what happens: a waiting parent, a service manager, a terminal, or whoever reads stderr."""
    if notify_fd is not None:
        parent = NotifyingAudience(notify_fd)
        try:
            yield parent
        except LauncherError as error:
            parent.tell(error=error.message, hint=error.hint, exit_code=error.exit_code)
            raise
    elif (manager := Notifier.from_environment(os.environ)) is not None:
        service = ServiceAudience(manager)
        try:
            yield service
        except LauncherError as error:
            service.failed(error.message)
            raise
        finally:
            service.close()
    elif sys.stderr.isatty():
        terminal = TerminalAudience(err_console())
        try:
            yield terminal
        finally:
            terminal.close()
    else:
        yield PlainAudience()


def prepare_and_run(loaded: LoadedProfile, audience: Audience, force: bool, node: Node | None, once: bool) -> bool:
    """Claim the name, plan, prepare, run; whether it was told twice to stop.

    ``node``: which of the engine's hosts this is. ``once``: a host beyond the first leaves with the head.
    """
    is_further = node is not None and not node.is_head
    rundir = RunDir.claim(run_name(loaded.profile.name, node) if node is not None else loaded.profile.name)
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
        say_plan(plan, audience)
        if is_further:
            prepared = prepare_model_and_build(loaded, plan, audience.said, node)
            return run_to_end(Following(loaded, prepared, audience, rundir=rundir, leaves_with_head=once), audience)
        prepared = prepare(loaded, plan, audience.said, node)
        keep_plan(rundir, loaded, plan)
        return run_to_end(Deployment(loaded, prepared, rundir, audience), audience)
    finally:
        rundir.release()


def say_plan(plan: Plan, audience: Audience) -> None:
    """Its summary, and what it warns of."""
    audience.said(f"plan: {plan.summary}")
    for finding in plan.findings:
        if finding.severity != "note":
            audience.said(f"{finding.severity}: {finding.message}" + (f" → {finding.remedy}" if finding.remedy else ""))


def keep_plan(rundir: RunDir, loaded: LoadedProfile, plan: Plan) -> None:
    """In the run directory, for the operator's page; where nothing is planned, there is none."""
    if plan.placements:
        with going_on_without(f"the plan in {rundir.path}"):
            rundir.write_plan(with_version(plan_data(loaded, plan, planned_commands(loaded, plan))))


def run_to_end(running: Running, audience: Audience) -> bool:
    """On an event loop of its own; whether it was told twice to stop."""
    collect_garbage_seldom()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(running, audience))
    return running.stopped_at_once


def collect_garbage_seldom() -> None:
    """A request leaves no cycles behind (tests/gateway/test_garbage.py), so there is little to be looked for.

    What stays for good is not looked at any more, and the rest every 50,000 objects instead of 700.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def run(running: Running, audience: Audience) -> None:
    """What runs, with its signals; on a terminal with a status line that moves, under a service manager with signs of life."""
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, running.request_stop)
    fresh = None
    if isinstance(audience, TerminalAudience | ServiceAudience):
        fresh = loop.create_task(audience.keep_fresh(running.snapshot))
    try:
        await running.run()
    finally:
        if fresh is not None:
            fresh.cancel()
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
