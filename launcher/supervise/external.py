"""Servers that run elsewhere: watched, and warmed, but never started, stopped or killed; they may join and leave.

Some are named one by one; others stand behind a name and are found there (see ``discovery``).
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol
from urllib.parse import urlsplit

from launcher.errors import LauncherError
from launcher.profile.model import TimeoutsSection
from launcher.supervise.discovery import PREFIX, Resolver, ServerName, follow, resolve
from launcher.supervise.engine import EngineEnd, ReplicaListener, new_ends
from launcher.supervise.engine_client import EngineClient, EngineRefused
from launcher.supervise.state import Failed
from launcher.supervise.warmup import WarmupFailed, WarmupRequest, warm_up
from launcher.supervise.watch import Watch

log = logging.getLogger("launcher.supervise")
_NAME_URL = re.compile(r"dns\+https?://[A-Za-z0-9._-]+(:[1-9][0-9]{0,4})?/?")
_BASE_URL = re.compile(r"https?://[^/?#@ ]+(/[^?# ]*)?")


@dataclass
class ExternalServer:
    """One server; written by its own watching task only. ``ready`` is None until the first answer.

    ``name`` is the name behind which it was found; empty: its URL was given.
    """

    index: int
    url: str
    name: str = ""
    ready: bool | None = None
    is_warm: bool = False
    reason: str = "not asked yet"


class Departures(Protocol):
    """Who lets a server that is no longer listed finish what it has: the gateway, in production."""

    def begin(self, index: int, gone: Callable[[], None] = ...) -> None:
        """It gets nothing more; ``gone`` is called once it is idle and forgotten."""

    def cancel(self, index: int) -> None:
        """It is listed again before it was gone."""


@dataclass(frozen=True)
class HealthCheck:
    """How a server is asked whether it is well. ``base`` turns its base URL into that of whom to ask."""

    path: str = "/health"
    every_s: float = 10.0
    base: Callable[[str], str] = str


@dataclass(frozen=True)
class Care:
    """What servers are put through that no launcher of their own looks after: a warm-up, and one-token probes.

    ``model`` is the name that they know theirs by; ``requests`` makes the warm-up's.
    """

    model: str
    requests: Callable[[], Sequence[WarmupRequest]]

    async def fault(self, client: EngineClient, is_warm: bool, timeouts: TimeoutsSection) -> str:
        """Warms a server up, or has one that is warm give a token: '' when it answers as it should."""
        try:
            if is_warm:
                await client.one_token(timeouts.probe)
            else:
                await warm_up(client, self.requests(), timeout_s=timeouts.warmup, on_step=lambda step: None)
        except (WarmupFailed, EngineRefused) as error:
            return error.message
        return ""


class ExternalWatch:
    """Asks each server's health path, warms and probes it where ``care`` is given, and tells the listener what changed.

    ``urls`` are base URLs, and names as ``dns+http://name:port`` whose servers come and go. Servers are numbered from
    ``first_index``; a number is never given twice.
    """

    def __init__(
        self,
        urls: Sequence[str],
        listener: ReplicaListener,
        *,
        health: HealthCheck,
        headers: Mapping[str, str],
        timeouts: TimeoutsSection,
        on_change: Callable[[ExternalServer], None],
        departures: Departures,
        care: Care | None = None,
        first_index: int = 0,
        resolver: Resolver = resolve,
    ) -> None:
        given = [url for url in urls if not url.startswith(PREFIX)]
        self.servers = [ExternalServer(index, url) for index, url in enumerate(given, first_index)]
        self.ends = new_ends()  # written by the watching tasks
        self.names = [url for url in urls if url.startswith(PREFIX)]
        self._next_index = first_index + len(given)
        self._listener = listener
        self._health = health
        self._care = care
        self._headers = headers
        self._timeouts = timeouts
        self._on_change = on_change
        self._departures = departures
        self._resolver = resolver
        self._group: asyncio.TaskGroup | None = None
        self._watching: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Watch until cancelled, with servers or without."""
        async with asyncio.TaskGroup() as self._group:
            for server in self.servers:
                self._begin(server)
            for url in self.names:
                name = ServerName.parse(url)
                changed = partial(self._listed, url, name)
                self._group.create_task(follow(name.host, name.port, changed, self._resolver))
            await asyncio.get_running_loop().create_future()

    def join(self, url: str) -> int:
        """Watches one more server from now on; its index. Raises LauncherError for a URL that cannot be one."""
        url = checked_url(url)
        for known in self.servers:
            if known.url == url:
                raise LauncherError(f"{url} is replica {known.index} already", "Remove that one first.")
        return self._take_in(url)

    def _take_in(self, url: str, name: str = "") -> int:
        server = ExternalServer(self._next_index, url, name)
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

    def _listed(self, source: str, name: ServerName, addresses: frozenset[str]) -> None:
        """These are behind ``name`` now: new ones are taken in, those that are no longer listed let go."""
        urls = {name.url_at(address) for address in addresses}
        known = {server.url: server for server in self.servers if server.name == source}
        for url in sorted(urls - known.keys()):
            log.info("%s: %s is there", source, url)
            self._take_in(url, source)
        for url, server in known.items():
            if url in urls:
                self._departures.cancel(server.index)
            else:
                log.info("%s: %s is no longer listed", source, url)
                self._departures.begin(server.index, partial(self._gone, server))

    def _gone(self, server: ExternalServer) -> None:
        self.leave(server.index)
        server.ready, server.reason = False, "no longer listed"
        self._on_change(server)

    def _begin(self, server: ExternalServer) -> None:
        assert self._group is not None
        self._listener.starting(server.index, server.url)
        self._watching[server.index] = self._group.create_task(self._watch(server))

    async def _watch(self, server: ExternalServer) -> None:
        client = EngineClient(self._health.base(server.url), self._care.model if self._care else "", self._headers)
        try:
            while True:
                await self._until_well(server, client)
                await self._until_not(server, client)
        finally:
            await client.close()

    async def _until_well(self, server: ExternalServer, client: EngineClient) -> None:
        """Healthy, and where nobody else warms it, warmed."""
        while (fault := await client.health_fault(self._timeouts.probe, self._health.path)) is not None:
            self._note(server, fault)
            server.is_warm = False  # it may be another process when it is back
            await asyncio.sleep(min(1.0, self._health.every_s))
        while self._care is not None and (fault := await self._care.fault(client, server.is_warm, self._timeouts)):
            self._note(server, fault)
            await asyncio.sleep(self._health.every_s)
        server.is_warm = True
        self._note(server, "")

    async def _until_not(self, server: ExternalServer, client: EngineClient) -> None:
        """Until its health path says no, or, where nobody else watches it, until it gives no tokens any more."""
        watch = Watch(client, lambda: self._listener.activity(server.index), self._timeouts, any_answer_is_life=True)
        hung = asyncio.create_task(watch.until_hung() if self._care is not None else _never())
        try:
            while True:
                await asyncio.wait({hung}, timeout=self._health.every_s)
                fault = await client.health_fault(self._timeouts.probe, self._health.path)
                if fault is None and hung.done():
                    fault = hung.result().reason
                if fault is not None:
                    self._note(server, fault)
                    return
        finally:
            hung.cancel()

    def _note(self, server: ExternalServer, fault: str) -> None:
        """What was found of it; '' when it is well. Told where it is new."""
        if server.ready == (not fault) and server.reason == fault:
            return
        if server.ready and fault:
            self.ends.append(EngineEnd(time.time(), server.index, "lost", fault))
        server.ready, server.reason = not fault, fault
        if fault:
            self._listener.down(server.index, f"{server.url}: {fault}")
        else:
            self._listener.ready(server.index)
        log.info("external %d: %s %s", server.index, server.url, fault or "ready")
        self._on_change(server)


async def _never() -> Failed:
    """What is watched elsewhere is not found hung here."""
    forever: asyncio.Future[Failed] = asyncio.get_running_loop().create_future()
    return await forever


def checked_source(url: str) -> str:
    """A server's base URL, or a name behind which servers are found. Raises LauncherError for what is neither."""
    if not url.startswith(PREFIX):
        return checked_url(url)
    if not _NAME_URL.fullmatch(url):
        raise LauncherError(f"{url!r} is not a name with a port", "Write it as dns+http://engine:8000.")
    return url.rstrip("/")


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
