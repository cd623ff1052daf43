"""Where transports come from: the listening sockets and the connections to engines, in one place."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import stat
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from launcher.errors import PreconditionError
from launcher.gateway.replicas import Replica

BACKLOG = 4096
LONGEST_SOCKET_PATH = 107  # bytes; the kernel's sun_path has 108, the last for the end
P = TypeVar("P", bound=asyncio.Protocol)


async def listen(
    make: Callable[[], asyncio.Protocol],
    address: str,
    context: ssl.SSLContext | None = None,
    *,
    handshake_s: float = 10.0,
    shutdown_s: float = 60.0,
    setting: str = "gateway.listen",
) -> tuple[asyncio.Server, str, int]:
    """Listens on host:port, with TLS where there is a ``context``; port 0 takes a free one.

    ``handshake_s`` bounds a TLS handshake, ``shutdown_s`` the end of a TLS connection: how long a client may take to
    read what was written for it and to close its side. ``setting`` is what the address was given by. Raises
    PreconditionError, which says what to do.
    """
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(
            make,
            host.strip("[]"),
            int(port),
            backlog=BACKLOG,
            ssl=context,
            ssl_handshake_timeout=handshake_s if context else None,
            ssl_shutdown_timeout=shutdown_s if context else None,
        )
    except OSError as error:
        raise _why_not(error, address, int(port), setting) from None
    name = server.sockets[0].getsockname()
    return server, name[0], name[1]


async def listen_unix(make: Callable[[], asyncio.Protocol], path: Path) -> asyncio.Server:
    """Listens on a Unix socket that only this user may use. Its file stays when the server is closed; the next one that
    listens there removes it. Raises PreconditionError, which says what to do."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(sock.fileno(), 0o600)  # what the file gets when it is made: nobody finds it open even for a moment
        _remove_stale(path)
        sock.bind(os.fspath(path))
        return await asyncio.get_running_loop().create_unix_server(make, sock=sock, backlog=BACKLOG)
    except OSError as error:
        sock.close()
        raise _why_no_socket(error, path) from None
    except BaseException:
        sock.close()
        raise


def _remove_stale(path: Path) -> None:
    """Removes the socket that a process which is gone has left; leaves alone what is none, and what is answered on."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
        visitor.settimeout(1.0)
        try:
            visitor.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except TimeoutError:  # its queue is full: somebody listens
            pass


def _why_no_socket(error: OSError, path: Path) -> PreconditionError:
    too_long = len(os.fsencode(path)) > LONGEST_SOCKET_PATH
    if too_long:
        return PreconditionError(
            f"{path}: the path is too long for a Unix socket: {len(os.fsencode(path))} bytes, {LONGEST_SOCKET_PATH} at most.",
            "Take a run directory with a shorter path.",
        )
    if error.errno == errno.EADDRINUSE and path.is_socket():
        return PreconditionError(
            f"{path}: another process listens on this socket.", "Stop that process, or take another run directory."
        )
    if error.errno == errno.EADDRINUSE:
        return PreconditionError(f"{path}: exists and is not a socket.", "Move that file away.")
    return PreconditionError(
        f"{path}: cannot listen on this socket: {error.strerror or error}.",
        "The folder must exist, and this user must be allowed to write in it.",
    )


async def connect(make: Callable[[], P], replica: Replica) -> P:
    """Opens a connection to an engine, or to the control app on its Unix socket. Raises OSError."""
    loop = asyncio.get_running_loop()
    if replica.socket_path is not None:
        _, protocol = await loop.create_unix_connection(make, replica.socket_path)
        return protocol
    context = _trusting_the_systems_authorities() if replica.tls else None
    _, protocol = await loop.create_connection(make, replica.host, replica.port, ssl=context)
    return protocol


@lru_cache(maxsize=1)
def _trusting_the_systems_authorities() -> ssl.SSLContext:
    return ssl.create_default_context()  # reads some hundred certificates: too slow to be done for each connection


def _why_not(error: OSError, address: str, port: int, setting: str) -> PreconditionError:
    code = error.errno
    if isinstance(error, socket.gaierror):
        return PreconditionError(
            f"{setting}: {address}: the host's name is not known.",
            "Write an address of this machine, such as 127.0.0.1:8000, or 0.0.0.0:8000 for all of them.",
        )
    if code == errno.EADDRINUSE:
        owner = port_owner(port)
        free = " (port 0 takes a free one)" if setting == "gateway.listen" else ""
        return PreconditionError(
            f"{setting}: {address}: the port is in use{f' by {owner}' if owner else ''}.",
            f"Stop that program, or take another port in {setting}{free}.",
        )
    if code in (errno.EACCES, errno.EPERM):
        return PreconditionError(
            f"{setting}: {address}: this user may not listen on port {port}.",
            "Ports below 1024 are for the system: take one above, such as 8000.",
        )
    if code == errno.EADDRNOTAVAIL:
        return PreconditionError(
            f"{setting}: {address}: that is no address of this machine.",
            "Write one of its own, or 0.0.0.0 for all of them.",
        )
    return PreconditionError(
        f"{setting}: {address}: cannot listen: {error.strerror or error}.", "Take another address."
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
