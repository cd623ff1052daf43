"""The engines as the gateway sees them: where each is, whether it is ready, and what it has in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from launcher.errors import LauncherError
from launcher.gateway.ledger import Caps, Ledger
from launcher.gateway.limit import AdaptiveLimit
from launcher.gateway.pace import Pace
from launcher.gateway.prefix import PrefixCache
from launcher.gateway.price import Price

if TYPE_CHECKING:
    from launcher.gateway.dispatch import Ticket

STARTING = "starting"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an engine listens, and the headers that it wants with every request (such as its own API key)."""

    url: str  # http or https, perhaps with a path that comes before /v1
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Activity:
    """What a watcher needs to tell a busy engine from a hung one."""

    in_flight: int
    last_byte_at: float | None  # the event loop's time of the last byte of an answer that was generated; None: none yet


class Replica:
    """One engine. ``last_byte_at`` is written by its connections; books, pace and turns by the dispatcher."""

    __slots__ = (
        "address",
        "caps",
        "extra_lines",
        "group_at",
        "host",
        "host_line",
        "index",
        "is_draining",
        "is_ready",
        "last_byte_at",
        "ledger",
        "limit",
        "losses",
        "own_names",
        "pace",
        "port",
        "prefix",
        "prefixes",
        "reason",
        "socket_path",
        "suspect_until",
        "tls",
        "turn",
        "unseen",
    )

    def __init__(self, index: int, endpoint: Endpoint, prefix_blocks: int) -> None:
        self.index = index
        self.is_ready = False
        self.reason = STARTING
        self.is_draining = False  # by an operator: what runs goes on, nothing new is sent
        self.losses = 0  # times that it went down while it was ready
        self.ledger = Ledger()
        self.caps: Caps | None = None  # None: to be worked out from the present rules
        self.pace = Pace()
        self.limit = AdaptiveLimit()
        self.prefixes = PrefixCache(prefix_blocks)
        self.unseen: deque[Ticket] = deque()  # sent, prompt not known to be done, and the answer will not show it
        self.group_at = -1e9  # when something was last sent: the window runs from then
        self.turn = 0  # number of the last ticket, so that equal replicas take turns
        self.last_byte_at: float | None = None
        self.suspect_until = 0.0  # a connection failed of late: others are preferred until then
        self.socket_path: str | None = None  # a Unix socket, in place of host and port
        self.point_to(endpoint)

    @classmethod
    def at_socket(cls, path: str) -> Replica | None:
        """What is no engine but is spoken to like one: the control app behind its Unix socket. None: there is no path."""
        if not path:
            return None
        control = cls(-1, Endpoint("http://control"), 0)
        control.socket_path = path
        return control

    def point_to(self, endpoint: Endpoint) -> None:
        """Takes the address apart once, into what each request needs. Raises LauncherError for what is no http URL."""
        parts = urlsplit(endpoint.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise LauncherError(
                f"replica {self.index}: {endpoint.url!r} is not an engine's URL",
                "Write http:// or https:// with a host, such as http://127.0.0.1:8001.",
            )
        self.tls = parts.scheme == "https"
        self.host = parts.hostname
        self.port = parts.port or (443 if self.tls else 80)
        self.address = (self.host, self.port, self.tls)
        self.prefix = parts.path.rstrip("/").encode("ascii")
        self.host_line = b"host: " + parts.netloc.rpartition("@")[2].encode("ascii")
        self.extra_lines = [f"{name}: {value}".encode("latin-1") for name, value in endpoint.headers.items()]
        self.own_names = frozenset(name.lower().encode("ascii") for name in endpoint.headers)

    @property
    def in_flight(self) -> int:
        """Requests that hold a part of it."""
        return self.ledger.requests

    def cached_tokens(self, price: Price) -> int:
        """How much of a prompt's beginning is probably in its prefix cache."""
        return min(price.prompt_tokens - 1, int(self.prefixes.match(price.chain) * price.block_tokens))

    def remember(self, price: Price) -> None:
        """The prompt will be in its prefix cache."""
        self.prefixes.add(price.chain)

    def __repr__(self) -> str:
        return f"<Replica {self.index} {'ready' if self.is_ready else 'down'} inflight={self.in_flight}>"


class Replicas:
    """The single owner of the replicas' health. Its owner calls add, ready and down; the gateway reads and listens."""

    def __init__(self, prefix_blocks: int = 4096) -> None:
        self._prefix_blocks = prefix_blocks  # what a replica's prefix cache holds
        self._by_index: dict[int, Replica] = {}
        self._listeners: list[Callable[[Replica], None]] = []
        self.ready_ones: list[Replica] = []

    def add(self, index: int, endpoint: Endpoint) -> None:
        """Makes a replica known, not ready yet; or tells that a known one has moved."""
        known = self._by_index.get(index)
        if known is None:
            self._by_index[index] = known = Replica(index, endpoint, self._prefix_blocks)
        else:
            known.point_to(endpoint)
            known.is_ready, known.reason = False, STARTING
        self._changed(known)

    def ready(self, index: int) -> None:
        """From now on the replica gets requests."""
        replica = self._by_index[index]
        replica.is_ready, replica.reason, replica.suspect_until = True, "", 0.0
        self._changed(replica)

    def down(self, index: int, reason: str) -> None:
        """From now on the replica gets no requests; ``reason`` says why, in /ready and in 503 answers."""
        replica = self._by_index[index]
        replica.losses += replica.is_ready
        replica.is_ready, replica.reason = False, reason
        replica.prefixes.clear()
        self._changed(replica)

    def activity(self, index: int) -> Activity:
        replica = self._by_index[index]
        return Activity(replica.in_flight, replica.last_byte_at)

    def drain(self, index: int) -> None:
        """Takes a replica out of the routing: what it has goes on. Raises KeyError for one that is not known."""
        self._by_index[index].is_draining = True
        self._changed(self._by_index[index])

    def undrain(self, index: int) -> None:
        """Takes it back. Raises KeyError for one that is not known."""
        self._by_index[index].is_draining = False
        self._changed(self._by_index[index])

    def remove(self, index: int) -> None:
        """Forgets a replica that has nothing in hand. Raises KeyError for one that is not known."""
        replica = self._by_index.pop(index)
        replica.is_ready, replica.reason = False, "it has left"
        self._changed(replica)

    def listen(self, listener: Callable[[Replica], None]) -> None:
        """``listener`` is called after each change of a replica's state."""
        self._listeners.append(listener)

    @property
    def all(self) -> list[Replica]:
        return list(self._by_index.values())

    def reasons(self) -> str:
        """Why no replica is ready, for people."""
        whys = {r.index: r.reason if not r.is_ready else "drained by an operator" for r in self._by_index.values()}
        if len(whys) == 1:
            return next(iter(whys.values()))
        waiting = [f"replica {index}: {why}" for index, why in whys.items()]
        return "; ".join(waiting) or "none has been started yet"

    def _changed(self, replica: Replica) -> None:
        self.ready_ones = [r for r in self._by_index.values() if r.is_ready and not r.is_draining]
        for listener in self._listeners:
            listener(replica)

    def __repr__(self) -> str:
        return f"<Replicas ready={len(self.ready_ones)}/{len(self._by_index)}>"
