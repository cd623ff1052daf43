"""A gateway with its admin socket in a run directory, as the control app and the command line meet it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from launcher.control import GATEWAY_SOCKET
from launcher.control.gateway_client import Answer, GatewayClient
from launcher.gateway.admin import AdminDoor
from launcher.gateway.audit import AuditLog
from launcher.gateway.sockets import listen_unix
from launcher.profile.model import TimeoutsSection
from launcher.supervise.external import ExternalWatch, HealthCheck
from launcher.up.hosts import Switchboard
from tests.gateway.harness import PATIENCE_S, Desk, gateway_to

TIMEOUTS = TimeoutsSection().model_copy(update={"probe_interval": 0.05, "probe": 5.0})


class AdminDesk:
    """A running gateway, the way to it, and the way to its admin socket."""

    def __init__(self, desk: Desk, door: AdminDoor, folder: Path) -> None:
        self.desk, self.door, self.folder = desk, door, folder
        self.gateway, self.replicas = desk.gateway, desk.replicas
        self.client = GatewayClient(folder / GATEWAY_SOCKET)

    async def ask(self, method: str, target: str, value: object = None, actor: str = "") -> Answer:
        """One request to the admin socket; in a thread, since the gateway has this one."""
        return await asyncio.to_thread(self.client.ask, method, target, value, actor)

    async def state(self) -> Any:
        return (await self.ask("GET", "/admin/state")).value

    async def until(self, holds: Any) -> None:
        """Asks for the state until it holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds(await self.state()):
                pass

    def audit(self) -> str:
        return (self.folder / "audit.log").read_text()


@asynccontextmanager
async def admin_desk(folder: Path, *urls: str, supervised: bool = False, **settings: Any) -> AsyncIterator[AdminDesk]:
    """A gateway to external servers at ``urls``, watched as in production; ``supervised``: to engines of our own."""
    async with gateway_to(*urls, ready=supervised, **settings) as desk:
        watch = ExternalWatch(
            () if supervised else urls,
            Switchboard(desk.replicas),
            health=HealthCheck(every_s=TIMEOUTS.probe_interval),
            headers={},
            timeouts=TIMEOUTS,
            on_change=lambda server: None,
            departures=desk.gateway.departures,
            first_index=len(urls) if supervised else 0,
        )
        audit = AuditLog(folder / "audit.log")
        door = AdminDoor(desk.gateway, name="test", membership=watch, audit=audit)
        server = await listen_unix(door.connection, folder / GATEWAY_SOCKET)
        watching = asyncio.create_task(watch.run())
        one = AdminDesk(desk, door, folder)
        try:
            if not supervised:
                await one.until(lambda state: all(replica["ready"] for replica in state["replicas"]))
            yield one
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            server.close()
            door.close()
