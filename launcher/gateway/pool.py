"""Idle connections to engines, kept for the next request, and fresh ones."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from launcher.gateway.replicas import Replica
from launcher.gateway.sockets import connect
from launcher.gateway.upstream import EngineConnection

IDLE_S = 4.0  # vLLM closes an idle connection after 5 s: one that is nearly so old would often fail
CONNECT_S = 5.0


class Pool:
    """Idle connections, the most recently used first."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._idle: dict[Replica, deque[EngineConnection]] = {}

    def take(self, replica: Replica) -> EngineConnection | None:
        """An idle connection that is probably still open, or None."""
        idle = self._idle.get(replica)
        while idle:
            connection = idle.pop()
            if not connection.transport.is_closing():
                if self._now() - connection.idle_since < IDLE_S:
                    return connection
                connection.transport.close()
        return None

    def put(self, connection: EngineConnection) -> None:
        if connection.address != connection.replica.address:
            connection.transport.close()
            return
        connection.idle_since = now = self._now()
        idle = self._idle.get(connection.replica)
        if idle is None:
            idle = self._idle[connection.replica] = deque()
        while idle and now - idle[0].idle_since >= IDLE_S:  # not every engine closes what a burst has left
            idle.popleft().transport.close()
        idle.append(connection)

    def forget(self, connection: EngineConnection) -> None:
        idle = self._idle.get(connection.replica)
        if idle and connection in idle:
            idle.remove(connection)

    def drop(self, replica: Replica) -> None:
        """Closes all idle connections to a replica."""
        for connection in self._idle.pop(replica, ()):
            connection.transport.close()

    def close(self) -> None:
        for replica in list(self._idle):
            self.drop(replica)

    async def dial(self, replica: Replica) -> EngineConnection:
        """A fresh connection. Raises OSError, TimeoutError among them."""
        async with asyncio.timeout(CONNECT_S):
            return await connect(lambda: EngineConnection(self, replica, self._now), replica)

    def __repr__(self) -> str:
        return f"<Pool idle={sum(map(len, self._idle.values()))}>"
