"""Names that stand for several servers: asked of the resolver again and again, so that servers come and go unaided.

``dns+http://engine:8000`` means port 8000 at each address behind ``engine``: a headless service of Kubernetes lists
the pods that are ready, compose lists a service's containers.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import urlsplit

log = logging.getLogger("launcher.supervise")
PREFIX = "dns+"
LOOK_UP_S = 2.0  # how often; cluster DNS keeps answers for 5 s of its own
# The resolver's word that there is nobody. Any other failure is its own, and then what was known last still holds.
NOBODY = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})

Resolver = Callable[[str, int], Awaitable[frozenset[str] | None]]


class ServerName(NamedTuple):
    """A name with the port and scheme of what runs at each of its addresses."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> ServerName:
        """From ``dns+http://engine:8000``, which the profile or the command line has checked."""
        parts = urlsplit(url.removeprefix(PREFIX))
        assert parts.hostname is not None
        return cls(parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))

    def url_at(self, address: str) -> str:
        """The base URL of the server at one of its addresses."""
        return f"{self.scheme}://{f'[{address}]' if ':' in address else address}:{self.port}"


async def resolve(host: str, port: int) -> frozenset[str] | None:
    """The addresses behind a name, perhaps none; None: the resolver failed, so nothing is known."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in NOBODY:
            return frozenset()
        log.warning("%s cannot be looked up: %s; going on with what was known", host, error.strerror)
        return None
    except OSError as error:
        log.warning("%s cannot be looked up: %s; going on with what was known", host, error)
        return None
    return frozenset(str(address[0]) for *_, address in found)


async def follow(host: str, port: int, changed: Callable[[frozenset[str]], None], resolver: Resolver = resolve) -> None:
    """Calls ``changed`` with the addresses behind a name whenever they are others. Until cancelled."""
    known: frozenset[str] | None = None
    while True:
        found = await resolver(host, port)
        if found is not None and found != known:
            known = found
            changed(found)
        await asyncio.sleep(LOOK_UP_S)
