"""Where transports come from: the listening socket and the connections to engines, in one place."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from launcher.errors import PreconditionError
from launcher.gateway.replicas import Replica

BACKLOG = 4096
P = TypeVar("P", bound=asyncio.Protocol)


async def listen(make: Callable[[], asyncio.Protocol], address: str) -> tuple[asyncio.Server, str, int]:
    """Listens on host:port; port 0 takes a free one. Raises PreconditionError, which says what to do."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(make, host.strip("[]"), int(port), backlog=BACKLOG)
    except OSError as error:
        raise _why_not(error, address, int(port)) from None
    name = server.sockets[0].getsockname()
    return server, name[0], name[1]


async def connect(make: Callable[[], P], replica: Replica) -> P:
    """Opens a connection to an engine. Raises OSError."""
    loop = asyncio.get_running_loop()
    context = _trusting_the_systems_authorities() if replica.tls else None
    _, protocol = await loop.create_connection(make, replica.host, replica.port, ssl=context)
    return protocol


@lru_cache(maxsize=1)
def _trusting_the_systems_authorities() -> ssl.SSLContext:
    return ssl.create_default_context()  # reads some hundred certificates: too slow to be done for each connection


def _why_not(error: OSError, address: str, port: int) -> PreconditionError:
    code = error.errno
    if isinstance(error, socket.gaierror):
        return PreconditionError(
            f"gateway.listen: {address}: the host's name is not known.",
            "Write an address of this machine, such as 127.0.0.1:8000, or 0.0.0.0:8000 for all of them.",
        )
    if code == errno.EADDRINUSE:
        owner = port_owner(port)
        return PreconditionError(
            f"gateway.listen: {address}: the port is in use{f' by {owner}' if owner else ''}.",
            "Stop that program, or take another port in gateway.listen (port 0 takes a free one).",
        )
    if code in (errno.EACCES, errno.EPERM):
        return PreconditionError(
            f"gateway.listen: {address}: this user may not listen on port {port}.",
            "Ports below 1024 are for the system: take one above, such as 8000.",
        )
    if code == errno.EADDRNOTAVAIL:
        return PreconditionError(
            f"gateway.listen: {address}: that is no address of this machine.",
            "Write one of its own, or 0.0.0.0 for all of them.",
        )
    return PreconditionError(
        f"gateway.listen: {address}: cannot listen: {error.strerror or error}.", "Take another address."
    )


def port_owner(port: int) -> str:
    """Who listens on a port, as 'process 123 (nginx)'; '' where /proc does not tell."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            columns = row.split()
            if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:  # 0A: listening
                inodes.add(f"socket:[{columns[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(file) in inodes for file in (process / "fd").iterdir()):
                return f"process {process.name} ({(process / 'comm').read_text().strip()})"
        except OSError:
            continue
    return ""
