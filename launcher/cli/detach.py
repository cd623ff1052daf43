"""`launcher up -d`: the same command in a session of its own, and a parent that waits for its word."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

import launcher
from launcher.engine.nodes import Node
from launcher.errors import LauncherError, StartTimeout
from launcher.profile.load import LoadedProfile
from launcher.profile.units import parse_duration
from launcher.supervise.rundir import state_root


def start_detached(
    loaded: LoadedProfile,
    sets: Sequence[str],
    *,
    wait: bool,
    timeout: str | None,
    force: bool,
    node: Node | None = None,
    words: Sequence[str] = (),
) -> None:
    """Start in the background. Returns when the engines are being started, or with ``wait`` when all are ready.

    ``node`` is this host's place among those of the engine, ``words`` how the command line says it.
    """
    name, timeouts = loaded.profile.name, loaded.profile.timeouts
    if node is not None and not node.is_head:
        name = f"{name}-node-{node.rank}"  # as up.following has it, which is not loaded here
    seconds = allowed_s(timeout) if timeout else timeouts.start + timeouts.warmup
    read_end, write_end = os.pipe()
    log_path = state_root() / name / "logs" / "up.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, *own_sources(), "-m", "launcher", "up", str(loaded.path), "--notify-fd", str(write_end)]
    argv += [part for one in sets for part in ("--set", one)] + ["--force"] * force + [*words]
    with log_path.open("ab") as log:  # a second `up -d` of a name that runs must not empty the first one's
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(write_end,), start_new_session=True
        )
    os.close(write_end)
    try:
        follow(name, read_end, process, wait, time.monotonic() + seconds, seconds)
    except KeyboardInterrupt:
        click.echo(
            f"{name} goes on in the background: `launcher ps`, `launcher logs {name}`, `launcher down {name}`", err=True
        )
        raise
    finally:
        os.close(read_end)


def own_sources() -> list[str]:
    """The option by which a child runs the same launcher as this process, and not another one in the current folder."""
    return [] if Path(launcher.__file__).parents[1] == Path.cwd() else ["-P"]


def allowed_s(timeout: str) -> float:
    """The --timeout option in seconds."""
    try:
        return parse_duration(timeout)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from None


def follow(name: str, fd: int, process: subprocess.Popen[bytes], wait: bool, deadline: float, seconds: float) -> None:
    """Repeat what the background launcher says until it is far enough. Raises what it raised."""
    for message in messages(fd, deadline):
        if said := message.get("said"):
            click.echo(said, err=True)
        if error := message.get("error"):
            process.wait()
            raise LauncherError(error, message.get("hint", ""), exit_code=message["exit_code"])
        if message.get("state") == "starting" and message.get("url") and not wait:
            click.echo(f"{name} is starting in the background on {message['url']}", err=True)
            click.echo(f"follow it with `launcher logs -f {name}`, stop it with `launcher down {name}`", err=True)
            return
        if message.get("state") in ("waiting", "running"):
            click.echo(f"{name} waits in the background for the head, and runs its part when told to", err=True)
            click.echo(
                f"see `launcher ps` and `launcher logs -f {name}`, stop it with `launcher down {name}`", err=True
            )
            return
        if message.get("ready"):
            click.echo(message["what_to_try"])
            return
    if process.poll() is None and time.monotonic() >= deadline:
        raise StartTimeout(
            f"{name} was not ready within {seconds:g} s; it goes on in the background",
            f"`launcher logs {name}` shows how far it is; give --timeout a longer time, or stop it: launcher down {name}",
        )
    raise LauncherError(
        f"{name} ended with code {process.wait()} before it was ready", f"`launcher logs {name}` shows why."
    )


def messages(fd: int, deadline: float) -> Iterator[dict[str, Any]]:
    """The JSON lines from ``fd`` until it closes or the deadline (time.monotonic) has passed."""
    pending = b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([fd], [], [], left)[0]:
            return
        chunk = os.read(fd, 65536)
        if not chunk:
            return
        *lines, pending = (pending + chunk).split(b"\n")
        yield from map(json.loads, lines)
