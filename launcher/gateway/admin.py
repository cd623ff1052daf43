"""The gateway's admin socket: live state, mode, replicas and keys, for `launcher` and the control app.

Its routes exist on a Unix socket in the run directory only, never on the public port: who may open that file may do
everything here. Each change is written to the audit log.
"""

from __future__ import annotations

import asyncio
import json
import logging
import pwd
import socket
import struct
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Protocol

from launcher.gateway import live
from launcher.gateway.admin_acts import NAMES, ROUTES, TABLE, path_of
from launcher.gateway.http1 import ClientConnection
from launcher.gateway.pages import JSON
from launcher.gateway.refusal import Refusal, Refused
from launcher.gateway.routes import Route

if TYPE_CHECKING:
    from launcher.gateway.heads import RequestHead
    from launcher.gateway.requests import Request
    from launcher.gateway.server import Gateway

log = logging.getLogger("launcher.gateway")
MAX_BODY = 64 * 1024
ACTOR = b"x-launcher-actor:"  # the control app says on whose behalf it asks


class Membership(Protocol):
    """Who watches the servers that join and leave at run time: the composition root gives one."""

    def join(self, url: str) -> int:
        """Begins to watch a server; its index. Raises LauncherError."""

    def leave(self, index: int) -> None:
        """Ends watching a server."""

    def can_leave(self, index: int) -> bool:
        """Whether it is a server that runs elsewhere, not an engine of this launcher's own."""


class Audit(Protocol):
    """Where changes are written down."""

    def record(self, actor: str, act: str, target: str, result: str = ...) -> bool: ...


class AdminDoor:
    """Serves the admin routes: what a ClientConnection needs of its server, beside the gateway that it looks into."""

    def __init__(
        self, gateway: Gateway, *, name: str, membership: Membership | None = None, audit: Audit | None = None
    ) -> None:
        self.gateway, self.name, self.membership, self.audit = gateway, name, membership, audit
        self.settings = gateway.settings.model_copy(update={"max_body": MAX_BODY})
        self.connections: set[ClientConnection] = set()
        self.minute = live.LastMinute()
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._sampling: asyncio.TimerHandle | None = None
        self._sample()

    def connection(self) -> ClientConnection:
        """A new connection's protocol, for the listener."""
        return ClientConnection(self, self._loop)

    def close(self) -> None:
        """Ends the connections; the listener is its owner's to close."""
        if self._sampling is not None:
            self._sampling.cancel()
        for connection in list(self.connections):
            connection.shut()

    # What a connection asks of its server.

    def route(self, head: RequestHead) -> Route:
        """Raises Refused with 404 or 405."""
        route = ROUTES.get(path_of(head.target))
        if route is None:
            shown = head.target.partition(b"?")[0].decode("latin-1")[:200]
            message = f"{shown} is not served on the admin socket. What is: {', '.join(NAMES)}."
            raise Refused(Refusal(404, "unknown_path", message))
        if head.method not in route.methods:
            allow = ", ".join(method.decode() for method in route.methods)
            message = f"{route.name} does not take {head.method.decode('latin-1')}. It takes {allow}."
            raise Refused(Refusal(405, "method_not_allowed", message, allow=allow))
        return route

    def glimpse(self, head: RequestHead, route: Route, beginning: bytes) -> None:
        """Nothing large is taken here."""

    def handle(self, connection: ClientConnection, request: Request) -> None:
        """Does what is asked and answers. Raises Refused."""
        head = request.head
        act, handler = TABLE[b"GET" if head.method == b"HEAD" else head.method, request.route.name]
        if not act:
            done = handler(self, request)
        else:
            actor = actor_of(connection, head)
            try:
                done = handler(self, request)
            except Refused as refused:
                self._write_down(actor, act, head.target.decode("latin-1"), f"refused: {refused.refusal.reason}")
                raise
            self._write_down(actor, act, done.what, "done")
        connection.answer(head, done.status, [JSON], json.dumps(done.value).encode() + b"\n", False)

    def refused(self, refusal: Refusal, head: RequestHead | None) -> None:
        asked = b"%b %b" % (head.method, head.target[:200]) if head is not None else b"- -"
        log.info("admin: %s %d %s", asked.decode("latin-1"), refusal.status, refusal.reason)

    def stalled(self, connection: ClientConnection) -> None:
        log.info("admin: a client was cut off: it read nothing for %g s", self.settings.write_timeout)

    def new_request_id(self) -> bytes:
        return self.gateway.new_request_id()

    def make_room(self) -> bool:
        """Nobody is closed for another's sake: who reaches this socket is of this machine."""
        return False

    def disconnected(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)

    # What runs by itself.

    def state(self) -> dict[str, Any]:
        """All figures; see launcher/control/models.py."""
        now = self._loop.time()
        found = live.state(self.gateway, name=self.name, uptime_s=now - self._since, minute=self.minute, now=now)
        for replica in found["replicas"]:
            replica["leaving"] = replica["index"] in self.leaving
            replica["external"] = self.can_leave(replica["index"])
        return found

    def can_leave(self, index: int) -> bool:
        return index in self.leaving or (self.membership is not None and self.membership.can_leave(index))

    def leave(self, index: int) -> None:
        """Sends a replica nothing more and forgets it once it is idle."""
        assert self.membership is not None
        self.membership.leave(index)
        self.gateway.departures.begin(index)

    @property
    def leaving(self) -> Collection[int]:
        """The replicas that are on their way out."""
        return self.gateway.departures.leaving

    def _sample(self) -> None:
        self.minute.note(live.counts(self.gateway.metrics, self._loop.time()))
        self._sampling = self._loop.call_later(live.SAMPLE_EVERY_S, self._sample)

    def _write_down(self, actor: str, act: str, what: str, result: str) -> None:
        log.info("admin: %s by %s: %s: %s", act, actor, what, result)
        if self.audit is not None:
            self.audit.record(actor, act, what, result)

    def __repr__(self) -> str:
        return f"<AdminDoor connections={len(self.connections)} leaving={sorted(self.leaving)}>"


def actor_of(connection: ClientConnection, head: RequestHead) -> str:
    """On whose behalf: what the control app says, else the user at the other end of the socket."""
    for line in head.lines:
        if line[: len(ACTOR)].lower() == ACTOR:
            return line[len(ACTOR) :].strip().decode("latin-1")
    peer = connection.transport.get_extra_info("socket")
    if peer is None or peer.family != socket.AF_UNIX:
        return "unknown"
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
