"""Servers that run elsewhere: watched by their health path, never started, stopped or killed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from launcher.profile.model import TimeoutsSection
from launcher.supervise.engine import ReplicaListener
from launcher.supervise.engine_client import EngineClient

log = logging.getLogger("launcher.supervise")


@dataclass
class ExternalServer:
    """One server; written by its own watching task only. ``ready`` is None until the first answer."""

    index: int
    url: str
    ready: bool | None = None
    reason: str = "not asked yet"


class ExternalWatch:
    """Asks each server's health path at timeouts.probe_interval and tells the listener what changed."""

    def __init__(
        self,
        urls: Sequence[str],
        listener: ReplicaListener,
        *,
        health_path: str,
        headers: Mapping[str, str],
        timeouts: TimeoutsSection,
        on_change: Callable[[ExternalServer], None],
    ) -> None:
        self.servers = [ExternalServer(index, url) for index, url in enumerate(urls)]
        self._listener = listener
        self._health_path = health_path
        self._headers = headers
        self._timeouts = timeouts
        self._on_change = on_change

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            for server in self.servers:
                self._listener.starting(server.index, server.url)
                group.create_task(self._watch(server))

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
