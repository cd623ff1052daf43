"""Servers that run elsewhere: watched by their health path, never started, stopped or killed; they may join and leave."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from launcher.errors import LauncherError
from launcher.profile.model import TimeoutsSection
from launcher.supervise.engine import ReplicaListener
from launcher.supervise.engine_client import EngineClient

log = logging.getLogger("launcher.supervise")
_BASE_URL = re.compile(r"https?://[^/?#@ ]+(/[^?# ]*)?")


@dataclass
class ExternalServer:
    """One server; written by its own watching task only. ``ready`` is None until the first answer."""

    index: int
    url: str
    ready: bool | None = None
    reason: str = "not asked yet"


class ExternalWatch:
    """Asks each server's health path at timeouts.probe_interval and tells the listener what changed.

    Servers are numbered from ``first_index``; a number is never given twice.
    """

    def __init__(
        self,
        urls: Sequence[str],
        listener: ReplicaListener,
        *,
        health_path: str,
        headers: Mapping[str, str],
        timeouts: TimeoutsSection,
        on_change: Callable[[ExternalServer], None],
        first_index: int = 0,
    ) -> None:
        self.servers = [ExternalServer(index, url) for index, url in enumerate(urls, first_index)]
        self._next_index = first_index + len(urls)
        self._listener = listener
        self._health_path = health_path
        self._headers = headers
        self._timeouts = timeouts
        self._on_change = on_change
        self._group: asyncio.TaskGroup | None = None
        self._watching: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Watch until cancelled, with servers or without."""
        async with asyncio.TaskGroup() as self._group:
            for server in self.servers:
                self._begin(server)
            await asyncio.get_running_loop().create_future()

    def join(self, url: str) -> int:
        """Watches one more server from now on; its index. Raises LauncherError for a URL that cannot be one."""
        url = checked_url(url)
        for known in self.servers:
            if known.url == url:
                raise LauncherError(f"{url} is replica {known.index} already", "Remove that one first.")
        server = ExternalServer(self._next_index, url)
        self._next_index += 1
        self.servers.append(server)
        if self._group is not None:
            self._begin(server)
        return server.index

    def leave(self, index: int) -> None:
        """Ends watching a server; the listener is told nothing more of it."""
        self.servers = [server for server in self.servers if server.index != index]
        if (task := self._watching.pop(index, None)) is not None:
            task.cancel()

    def can_leave(self, index: int) -> bool:
        """Whether it is one of these servers."""
        return any(server.index == index for server in self.servers)

    def _begin(self, server: ExternalServer) -> None:
        assert self._group is not None
        self._listener.starting(server.index, server.url)
        self._watching[server.index] = self._group.create_task(self._watch(server))

    async def _watch(self, server: ExternalServer) -> None:
        client = EngineClient(server.url, "", self._headers)
        try:
            while True:
                await self._look(server, client)
                await asyncio.sleep(
                    self._timeouts.probe_interval if server.ready else min(1.0, self._timeouts.probe_interval)
                )
        finally:
            await client.close()

    async def _look(self, server: ExternalServer, client: EngineClient) -> None:
        fault = await client.health_fault(self._timeouts.probe, self._health_path)
        if server.ready == (fault is None) and server.reason == (fault or ""):
            return
        server.ready, server.reason = fault is None, fault or ""
        if fault is None:
            self._listener.ready(server.index)
        else:
            self._listener.down(server.index, f"{server.url}: {fault}")
        log.info("external %d: %s %s", server.index, server.url, fault or "ready")
        self._on_change(server)


def checked_url(url: str) -> str:
    """A server's base URL, without a slash at its end. Raises LauncherError for what is none."""
    try:
        well_formed = url.isascii() and url.isprintable() and _BASE_URL.fullmatch(url)
        fits = well_formed and urlsplit(url).hostname and urlsplit(url).port != 0
    except ValueError:  # the port, or the brackets of an IPv6 address
        fits = False
    if not fits:
        raise LauncherError(f"{url!r} is not a server's base URL", "Write it as http://10.0.0.5:8000.")
    if re.search(r"/v1/*$", url):
        raise LauncherError(f"{url!r} ends with /v1", "Leave that out: the gateway adds it.")
    return url.rstrip("/")
