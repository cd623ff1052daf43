"""How a running deployment is shown: a live line on a terminal, plain lines off one, JSON lines to a waiting parent."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from launcher.up.snapshot import Snapshot

if TYPE_CHECKING:
    from rich.console import Console

REFRESH_S = 1.0
QUESTION = "What is the capital of France?"


class PlainAudience:
    """One line for each thing worth keeping, to stderr; what to try, once ready, to stdout unless that is for requests."""

    def __init__(self, *, keeps_stdout_clear: bool = False) -> None:
        self._keeps_stdout_clear = keeps_stdout_clear

    def said(self, line: str) -> None:
        click.echo(line, err=True)

    def changed(self, snapshot: Snapshot) -> None:
        pass

    def ready(self, snapshot: Snapshot) -> None:
        click.echo(what_to_try(snapshot), err=self._keeps_stdout_clear)


class TerminalAudience:
    """The same lines, above a status line that stays at the bottom of the terminal."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        self._live = Live("", console=console, auto_refresh=False, transient=True)
        self._live.start()

    def said(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def changed(self, snapshot: Snapshot) -> None:
        self._live.update(status_line(snapshot), refresh=True)

    def ready(self, snapshot: Snapshot) -> None:
        self._console.print(what_to_try(snapshot), markup=False, highlight=False, soft_wrap=True)

    async def keep_fresh(self, snapshot: Callable[[], Snapshot]) -> None:
        """Redraw the status line each second, for the counts that change without an event."""
        while True:
            await asyncio.sleep(REFRESH_S)
            self.changed(snapshot())

    def close(self) -> None:
        """Take the status line away."""
        self._live.stop()


class NotifyingAudience:
    """JSON lines to the file descriptor of the `launcher up -d` that waits for us; plain lines to our own log."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd
        os.set_inheritable(fd, False)
        os.set_blocking(fd, False)  # a parent that is suspended must not suspend us

    def tell(self, **message: object) -> None:
        """One message; a parent that is gone, or does not read, is no error."""
        if self._fd is None:
            return
        try:
            os.write(self._fd, json.dumps(message).encode() + b"\n")
        except (BrokenPipeError, BlockingIOError):
            os.close(self._fd)
            self._fd = None

    def said(self, line: str) -> None:
        click.echo(line, err=True)
        self.tell(said=line)

    def changed(self, snapshot: Snapshot) -> None:
        if self._fd is not None:
            self.tell(state=snapshot.state, url=snapshot.url)

    def ready(self, snapshot: Snapshot) -> None:
        self.tell(ready=dataclasses.asdict(snapshot), what_to_try=what_to_try(snapshot))


def what_to_try(snapshot: Snapshot) -> str:
    """A first request that works when pasted."""
    body = json.dumps({"model": snapshot.model, "messages": [{"role": "user", "content": QUESTION}]})
    return (
        f"\nReady: {snapshot.url} serves {snapshot.model}. Open it in a browser, or ask:\n\n"
        f"  curl {snapshot.url}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f"    -d {shlex.quote(body)}\n\n"
        f"Operations {snapshot.url}/ops · metrics {snapshot.url}/metrics · stop with Ctrl+C or `launcher down {snapshot.name}`\n"
    )


def status_line(snapshot: Snapshot) -> str:
    """One line that says how it stands."""
    engines = ", ".join(
        f"engine {engine.index} {engine.stage or engine.phase}"
        + (f" (restarts {engine.restarts})" if engine.restarts else "")
        for engine in snapshot.engines
    )
    return f"{snapshot.state} · {engines} · in flight {snapshot.in_flight} · queued {snapshot.queued}"
