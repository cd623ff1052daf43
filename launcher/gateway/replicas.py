"""The engines as the gateway sees them: where each is, whether it is ready, and what it has in flight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from launcher.errors import LauncherError

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
    """One engine. ``in_flight`` is written by the dispatcher, ``last_byte_at`` by the engine's connections."""

    __slots__ = (
        "address",
        "extra_lines",
        "host",
        "host_line",
        "in_flight",
        "index",
        "is_ready",
        "last_byte_at",
        "own_names",
        "port",
        "prefix",
        "reason",
        "suspect_until",
        "tls",
    )

    def __init__(self, index: int, endpoint: Endpoint) -> None:
        self.index = index
        self.is_ready = False
        self.reason = STARTING
        self.in_flight = 0
        self.last_byte_at: float | None = None
        self.suspect_until = 0.0  # a connection failed of late: others are preferred until then
        self.point_to(endpoint)

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

    def __repr__(self) -> str:
        return f"<Replica {self.index} {'ready' if self.is_ready else 'down'} inflight={self.in_flight}>"


class Replicas:
    """The single owner of the replicas' health. Its owner calls add, ready and down; the gateway reads and listens."""

    def __init__(self) -> None:
        self._by_index: dict[int, Replica] = {}
        self._listeners: list[Callable[[Replica], None]] = []
        self.ready_ones: list[Replica] = []

    def add(self, index: int, endpoint: Endpoint) -> None:
        """Makes a replica known, not ready yet; or tells that a known one has moved."""
        known = self._by_index.get(index)
        if known is None:
            self._by_index[index] = known = Replica(index, endpoint)
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
        replica.is_ready, replica.reason = False, reason
        self._changed(replica)

    def activity(self, index: int) -> Activity:
        replica = self._by_index[index]
        return Activity(replica.in_flight, replica.last_byte_at)

    def listen(self, listener: Callable[[Replica], None]) -> None:
        """``listener`` is called after each change of a replica's state."""
        self._listeners.append(listener)

    @property
    def all(self) -> list[Replica]:
        return list(self._by_index.values())

    def reasons(self) -> str:
        """Why no replica is ready, for people."""
        if len(self._by_index) == 1:
            return next(iter(self._by_index.values())).reason
        waiting = [f"replica {r.index}: {r.reason}" for r in self._by_index.values() if not r.is_ready]
        return "; ".join(waiting) or "none has been started yet"

    def _changed(self, replica: Replica) -> None:
        self.ready_ones = [r for r in self._by_index.values() if r.is_ready]
        for listener in self._listeners:
            listener(replica)

    def __repr__(self) -> str:
        return f"<Replicas ready={len(self.ready_ones)}/{len(self._by_index)}>"
