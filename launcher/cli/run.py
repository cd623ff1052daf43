"""The verbs that run things: up, down, ps, logs."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from launcher.cli.figures import BLANK, COLUMNS, cells, standing
from launcher.cli.nodes import NodeOptions, node_options
from launcher.cli.output import OUTPUT_OPTION, SET_OPTION, print_json, print_table
from launcher.control.record import describe, look
from launcher.errors import LauncherError, PreconditionError
from launcher.profile.load import load_profile
from launcher.supervise.rundir import Found, end_leftovers, find_all, forget, wait_unlocked

FOLLOW_S = 0.25
KILL_WAIT_S = 10.0


@click.command("up", epilog="Example: launcher up profiles/cpu-smollm2.yaml")
@click.argument("profile", type=click.Path(path_type=Path))
@SET_OPTION
@click.option("-d", "--detach", is_flag=True, help="Run in the background; return once the engines are being started.")
@click.option("--wait", is_flag=True, help="With -d: return once every engine is ready, or has failed.")
@click.option("--timeout", metavar="DURATION", help="With --wait: how long. Default: timeouts.start + timeouts.warmup.")
@click.option("--force", is_flag=True, help="Start although the plan says that it does not fit.")
@node_options
@click.option("--notify-fd", type=int, hidden=True)
def up_command(
    profile: Path,
    sets: Sequence[str],
    detach: bool,
    wait: bool,
    timeout: str | None,
    force: bool,
    notify_fd: int | None,
    node: NodeOptions,
) -> None:
    """Start a profile: check the plan, fetch the model, start and warm the engines, serve.

    In the foreground, Ctrl+C lets running requests finish and stops; a second one stops at once.

    An engine over several hosts (engine.nodes) has a launcher on each: --node-rank says which it is, --head where host 0
    is, which runs the gateway. They start together, end together, and wait for each other.
    """
    if (wait or timeout) and not detach:
        raise click.UsageError("--wait and --timeout go with -d; in the foreground `up` shows when it is ready.")
    loaded = load_profile(profile, sets=sets)
    place = node.place(loaded.profile, "up", profile, sets)
    if wait and place is not None and not place.is_head:
        raise click.UsageError("--wait goes with --node-rank 0: that host knows when the engine is ready.")
    if detach:
        from launcher.cli.detach import start_detached

        start_detached(loaded, sets, wait=wait, timeout=timeout, force=force, node=place, words=node.words())
    else:
        from launcher.cli.serve import serve  # brings the gateway and the supervisor: only here are they needed

        serve(loaded, force=force, notify_fd=notify_fd, node=place, once=node.once)


@click.command("down", epilog="Example: launcher down cpu-smollm2")
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="Stop every running deployment.")
@click.option("--now", is_flag=True, help="Do not wait for running requests.")
def down_command(name: str | None, everything: bool, now: bool) -> None:
    """Stop a deployment: no new requests, running ones finish (timeouts.drain), then the engines end.

    NAME is the deployment's name or its profile's file; without one, the only one that runs.
    """
    for found in find_all() if everything else [choose(name)]:
        stop(found, now=now)


def stop(found: Found, *, now: bool) -> None:
    """End one deployment and wait until it is gone."""
    if not found.alive:
        ended = end_leftovers(found.record)
        forget(found.path)
        click.echo(f"{found.name}: its launcher was gone already; ended {len(ended)} processes that it left", err=True)
        return
    pid = found.pid
    if pid is None:
        raise LauncherError(f"{found.name} is only just starting", "Try again in a moment.")
    click.echo(f"{found.name}: stopping (pid {pid})", err=True)
    allowed_s = float(found.record.get("stop_within_s", 60.0))
    with contextlib.suppress(ProcessLookupError):  # it ends by itself just now
        os.kill(pid, signal.SIGTERM)
        if now:
            os.kill(pid, signal.SIGINT)  # of another kind: two alike in one instant are one signal
    if not wait_unlocked(found.path, allowed_s):
        click.echo(f"{found.name}: not gone within {allowed_s:g} s: killed", err=True)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_unlocked(found.path, KILL_WAIT_S)
        end_leftovers(found.record)
        forget(found.path)
    click.echo(f"{found.name}: stopped", err=True)


@click.command("ps", epilog="Example: launcher ps -o json")
@OUTPUT_OPTION
def ps_command(output: str) -> None:
    """List running deployments and their engines.

    With live figures: PREFILL TOKENS is what an engine has in hand of what it may have; TTFT and TOKENS/S (of answers)
    are of the last minute.
    """
    found = find_all()
    if output == "json":
        print_json({"deployments": [{**describe(one), "live": look(one)} for one in found]})
        return
    if not found:
        click.echo("nothing is running; start with: launcher up profiles/cpu-smollm2.yaml", err=True)
        return
    rows = [row for one in found for row in ps_rows(one, look(one))]
    print_table(("NAME", "STATE", "URL", "ENGINE", "ENGINE STATE", "FOR", *COLUMNS, "RESTARTS", "LAST FAILURE"), rows)


def ps_rows(found: Found, live: dict[str, Any] | None) -> Iterator[tuple[str, ...]]:
    """A table row for each engine; one row for a deployment that has none yet."""
    record = describe(found)
    head = (found.name, str(record["state"]), str(record.get("url", "")))
    if not found.alive:
        yield (*head, "", "its launcher was killed; `launcher down` or the next `up` cleans up", "", *BLANK, "", "")
        return
    for number, engine in enumerate(record.get("engines") or [{}]):
        since, index = engine.get("since"), engine.get("index")
        yield (
            *head,
            "" if index is None else str(index),
            str(engine.get("stage") or engine.get("phase", "")) + standing(live, index),
            f"{time.time() - since:.0f} s" if since else "",
            *cells(live, index, number == 0),
            str(engine.get("restarts", "")),
            str(engine.get("last_failure", "")),
        )
        head = ("", "", "")


@click.command("logs", epilog="Example: launcher logs -f cpu-smollm2 --engine 0")
@click.argument("name", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on as lines come, until Ctrl+C.")
@click.option(
    "-n", "--lines", type=click.IntRange(min=0), default=100, show_default=True, help="How many lines to begin with."
)
@click.option("--engine", type=int, help="Only this engine's log.")
@click.option("--launcher", "own", is_flag=True, help="Only the launcher's and gateway's own log.")
def logs_command(name: str | None, follow: bool, lines: int, engine: int | None, own: bool) -> None:
    """Show the logs of a deployment, also of one that has ended: the launcher's and each engine's."""
    found = choose(name, ended_too=True)
    pattern = f"engine-{engine}.log" if engine is not None else "launcher.log" if own else "*.log"
    files = sorted(found.logs.glob(pattern))
    if not files:
        have = ", ".join(sorted(path.name for path in found.logs.glob("*.log"))) or "none"
        raise LauncherError(f"{found.logs} has no {pattern} (it has: {have})", "`launcher ps` lists what runs.")
    prefixes = {path: f"{path.stem} | " if len(files) > 1 else "" for path in files}
    ends = {path: show_tail(path, lines, prefixes[path]) for path in files}
    while follow:
        time.sleep(FOLLOW_S)
        for path in files:
            ends[path] = show_from(path, ends[path], prefixes[path])


def show_tail(path: Path, lines: int, prefix: str) -> int:
    """Print the last lines of a file; the offset of its end in bytes."""
    data = path.read_bytes()
    for line in data.decode("utf-8", "replace").splitlines()[-lines:] if lines else ():
        click.echo(prefix + line)
    return len(data)


def show_from(path: Path, offset: int, prefix: str) -> int:
    """Print whole lines that came after ``offset``; the offset after them. A file that shrank was rotated: from its start."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            offset = offset if size >= offset else 0
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:  # between a rotation's two steps
        return 0
    whole = data[: data.rfind(b"\n") + 1]
    for line in whole.decode("utf-8", "replace").splitlines():
        click.echo(prefix + line)
    return offset + len(whole)


def choose(name: str | None, *, ended_too: bool = False) -> Found:
    """The deployment that ``name`` means: a name, a profile's file, or None for the only one. Raises with the choices."""
    found = find_all(ended_too=ended_too)
    if name is None:
        if len(found) == 1:
            return found[0]
        running = ", ".join(one.name for one in found)
        raise PreconditionError(
            f"{len(found)} deployments are running: {running}" if found else "nothing is running",
            "Name one of them." if found else "`launcher up profiles/cpu-smollm2.yaml` starts one.",
        )
    wanted = load_profile(Path(name)).profile.name if name.endswith((".yaml", ".yml")) else name
    for one in found:
        if one.name == wanted:
            return one
    running = ", ".join(one.name for one in found) or "none"
    raise PreconditionError(f"no deployment {wanted!r} is running (running: {running})", "`launcher ps` lists them.")
