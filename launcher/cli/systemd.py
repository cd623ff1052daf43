"""A service manager that waits for us (systemd, Type=notify) is told when we are ready, how we stand, and that we live.

The protocol is sd_notify(3)'s: lines of NAME=VALUE in a datagram to the socket that NOTIFY_SOCKET names.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, MutableMapping

import click

from launcher.cli.audience import PlainAudience, status_line
from launcher.up.snapshot import Snapshot

SERVING = ("ready", "degraded", "waiting", "running")  # the last two: of a host that runs a part for another's gateway
REFRESH_S = 10.0  # of the status, where no watchdog asks for more


class Notifier:
    """The way to the service manager. ``watchdog_s``: how long it waits for a sign of life; 0: it wants none."""

    def __init__(self, address: str, watchdog_s: float = 0.0) -> None:
        self.watchdog_s = watchdog_s
        self._address = "\0" + address[1:] if address.startswith("@") else address  # @: not in the file system
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)  # a manager that does not read must not hold us up

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Notifier | None:
        """None where nobody waits. What it reads it takes out: engines inherit the rest, and must not speak for us."""
        address = environ.pop("NOTIFY_SOCKET", "")
        pid, interval_us = environ.pop("WATCHDOG_PID", ""), environ.pop("WATCHDOG_USEC", "")
        if not address.startswith(("/", "@")):
            return None
        is_for_us = interval_us.isdecimal() and pid in ("", str(os.getpid()))
        return cls(address, int(interval_us) / 1e6 if is_for_us else 0.0)

    def tell(self, **facts: str) -> bool:
        """One message; False where it did not get through, which is no error."""
        lines = [f"{name}={' '.join(value.split())}" for name, value in facts.items()]
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


class ServiceAudience(PlainAudience):
    """Plain lines, for the journal; the manager has the last of them as status, later the standing of the engines.

    Ready means that requests are answered, by one engine at least, as GET /ready has it.
    """

    def __init__(self, notifier: Notifier) -> None:
        super().__init__()
        self._notifier = notifier
        self._is_ready = self._is_stopping = False

    def said(self, line: str) -> None:
        super().said(line)
        if not self._is_ready:
            self._notifier.tell(STATUS=line)

    def changed(self, snapshot: Snapshot) -> None:
        facts = {"STATUS": status_line(snapshot)}
        if snapshot.state in SERVING and not self._is_ready:
            self._is_ready = self._notifier.tell(READY="1", **facts)
        elif snapshot.state == "draining" and not self._is_stopping:
            self._is_stopping = self._notifier.tell(STOPPING="1", **facts)
        elif self._is_ready:
            self._notifier.tell(**facts)

    def ready(self, snapshot: Snapshot) -> None:
        click.echo(f"ready: {snapshot.url}/v1 serves {snapshot.model}", err=True)

    async def keep_fresh(self, snapshot: Callable[[], Snapshot]) -> None:
        """Signs of life, from the event loop that also serves, and with them the counts that change without an event."""
        watchdog_s = self._notifier.watchdog_s
        while True:
            if watchdog_s:
                self._notifier.tell(WATCHDOG="1")
            self.changed(snapshot())
            await asyncio.sleep(watchdog_s / 2 if watchdog_s else REFRESH_S)

    def failed(self, message: str) -> None:
        """The last word of one that could not start, or not go on."""
        self._notifier.tell(STATUS=f"failed: {message}")

    def close(self) -> None:
        self._notifier.close()
