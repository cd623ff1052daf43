"""Who is asking: the API key in a request's head, the identity behind it, and the refusals of those without one.

Called with the head alone, so that the upload of somebody without a key is not even read. What needs no key: the probes
(/health, /ready, /ping), since load balancers and Kubernetes send none, and they tell nothing about anybody's requests; and
the web page's files, which are the same everywhere and ask for the key themselves. /metrics and / do need one (/ unless it
is the page that is asked for): they show the model and how much it is used, and Prometheus can send a bearer token.

Several keys that differ are refused: whose the request is would be a guess. Answers that have begun outlive their key.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING

from launcher.errors import PreconditionError
from launcher.gateway.heads import RequestHead
from launcher.gateway.keyfile import Key, show_time
from launcher.gateway.modes import Priority
from launcher.gateway.order import Account
from launcher.gateway.rate import Limits
from launcher.gateway.refusal import Refusal, Refused
from launcher.gateway.static import FILES, wants_page

if TYPE_CHECKING:
    from launcher.gateway.keyring import KeyRing

OPEN_PATHS = frozenset((b"/health", b"/ready", b"/ping", b"/ops", b"/favicon.ico"))
_AUTHORIZATION = len("authorization")  # of the names of credentials no other is as long
LOOK_EVERY_S = 1.0  # how often the keys' file is looked at, and only when a request comes


class Identity:
    """Who sends a request: one object for each key, kept over reloads. Written by the key ring alone."""

    __slots__ = (
        "account",
        "digest",
        "expires",
        "is_admin",
        "key_id",
        "limits",
        "max_priority",
        "name",
        "priority",
        "revoked",
        "weight",
    )

    def __init__(self, key: Key) -> None:
        self.account = Account(key.id, key.weight)
        self.limits: Limits | None = None
        self.follow(key)

    def follow(self, key: Key) -> None:
        """Takes over what an entry says. What was used of the limits stays used, what was served stays served."""
        self.key_id, self.name, self.digest = key.id, key.name, bytes.fromhex(key.sha256)
        self.priority, self.max_priority, self.weight = key.priority, key.max_priority, key.weight
        self.account.weight = key.weight
        self.is_admin, self.expires, self.revoked = key.is_admin, key.expires, key.revoked
        if key.requests_per_minute is None and key.tokens_per_minute is None:
            self.limits = None
        elif self.limits is None:
            self.limits = Limits(key.name, key.requests_per_minute, key.tokens_per_minute)
        else:
            self.limits.name = key.name
            self.limits.change(key.requests_per_minute, key.tokens_per_minute)

    def __repr__(self) -> str:
        return f"<Identity {self.key_id} {self.name!r}>"


# Everybody, where no keys are needed: any priority, no limits, and no admin, which is never given for nothing.
ANONYMOUS = Identity(Key(id="anonymous", name="anonymous", sha256="", max_priority=Priority.HIGH))


@dataclass(frozen=True, slots=True)
class KeyRefusal(Refusal):
    """401: says how to show a key."""

    def lines(self) -> list[bytes]:
        return [*Refusal.lines(self), b"www-authenticate: Bearer"]


MISSING = KeyRefusal(
    401, "missing_key", "This endpoint needs an API key: send it as 'Authorization: Bearer KEY', or as x-api-key."
)
WRONG = KeyRefusal(
    401,
    "wrong_key",
    "The API key is not known here. `launcher key list` shows those that are, `launcher key add` makes one.",
)
SCHEME = KeyRefusal(
    401, "wrong_scheme", "The Authorization header is not 'Bearer KEY', which is what is understood here."
)
SEVERAL = KeyRefusal(401, "several_keys", "The request has several API keys that differ: send one.")


class Gatekeeper:
    """Tells who is asking. ``required``: every request needs a key, but for what is_open() lets in; never turns back to False."""

    def __init__(
        self,
        ring: KeyRing,
        required: bool,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ring, self.required = ring, required
        self._clock, self._monotonic = clock, monotonic
        self._look_at = 0.0 if ring.is_live else float("inf")

    def identify(self, head: RequestHead) -> Identity:
        """Whose request this is; takes the key's lines off the head where keys are needed, so that no engine sees them.

        Raises Refused with 401.
        """
        if self._monotonic() >= self._look_at:
            self._look()
        if not self.required:
            return ANONYMOUS
        secret, refusal = take_secret(head)
        if refusal is None:
            digest = sha256(secret).digest()
            identity = self.ring.identities.get(digest)
            # The look-up's time depends on the digest, which nobody can steer without knowing a key's hash and inverting
            # it; the comparison that decides takes the same time for all.
            if identity is not None and compare_digest(identity.digest, digest):
                if identity.revoked is None and (identity.expires is None or self._clock() < identity.expires):
                    return identity
                refusal = _no_longer(identity)
            else:
                refusal = WRONG
        if is_open(head):
            return ANONYMOUS
        raise Refused(refusal)

    def reload(self) -> int:
        """Reads the keys' file now, without waiting for the next look; how many keys there are. Raises KeyFault."""
        try:
            self.ring.read()
        finally:
            self._follow()
        return len(self.ring.identities)

    def _look(self) -> None:
        self.ring.look()
        self._follow()

    def _follow(self) -> None:
        self._look_at = self._monotonic() + LOOK_EVERY_S if self.ring.is_live else float("inf")
        self.required = self.required or self.ring.wants_keys

    def __repr__(self) -> str:
        return f"<Gatekeeper {'keys' if self.required else 'open'} {self.ring!r}>"


def take_secret(head: RequestHead) -> tuple[bytes, KeyRefusal | None]:
    """Takes the lines that hold a key off the head; the key, or why there is none."""
    secret, refusal = b"", None
    for line in head.credentials:
        try:  # noqa: SIM105 (suppress() costs as much as all the rest here)
            head.lines.remove(line)
        except ValueError:  # a Connection header has named it: it is off already
            pass
        colon = line.index(b":")
        value = line[colon + 1 :].strip()
        if colon == _AUTHORIZATION:
            if value[:7].lower() == b"bearer ":
                value = value[7:].lstrip()
            elif value.lower() == b"bearer":
                value = b""
            elif value:
                refusal = SCHEME
        if value != secret and value:
            refusal = SEVERAL if secret else refusal
            secret = value
    head.credentials = ()
    return secret, refusal if secret or refusal else MISSING


def is_open(head: RequestHead) -> bool:
    """Whether a request needs no key, whoever sends it."""
    path = head.target.partition(b"?")[0]
    return path in OPEN_PATHS or path.startswith(FILES) or (path == b"/" and wants_page(head))


def _no_longer(identity: Identity) -> KeyRefusal:
    """Only who has the key itself is told so much."""
    if identity.revoked is not None:
        message = f"The API key {identity.name!r} ({identity.key_id}) was revoked at {show_time(identity.revoked)}."
        return KeyRefusal(401, "revoked_key", message)
    assert identity.expires is not None
    message = f"The API key {identity.name!r} ({identity.key_id}) expired at {show_time(identity.expires)}."
    return KeyRefusal(401, "expired_key", message)


def require_admin(identity: Identity) -> None:
    """Raises Refused with 403 unless the key may administer."""
    if not identity.is_admin:
        message = (
            f"The API key {identity.name!r} may not do this: it takes one made with `launcher key add NAME --admin`."
        )
        if identity is ANONYMOUS:
            message = "This takes an API key made with `launcher key add NAME --admin`."
        raise Refused(Refusal(403, "not_admin", message))


def keys_required(auth: str, listen: str, has_keys: bool) -> bool:
    """Whether requests need a key, by gateway.auth and gateway.listen. Raises PreconditionError where nothing is decided.

    ``has_keys``: the file or the environment holds any, revoked ones too: who has revoked the last one wants no open door.
    """
    if auth == "none" or (auth == "auto" and not has_keys and is_loopback(listen)):
        return False
    if has_keys:
        return True
    why = f"gateway.listen is {listen}, which others can reach" if auth == "auto" else "gateway.auth is keys"
    way_out = "gateway.auth: none" if auth == "auto" else "gateway.auth: auto or none"
    raise PreconditionError(
        f"{why}, and there are no API keys",
        f"Make one with `launcher key add NAME --profile FILE` (or set LAUNCHER_API_KEYS), or set {way_out}.",
    )


def is_loopback(listen: str) -> bool:
    """Whether only this machine reaches an address such as 127.0.0.1:8000."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_local(peer: tuple[str, ...] | str | None) -> bool:
    """Whether the other end of a connection is on this machine. ``peer``: as the transport names it."""
    if not isinstance(peer, tuple):  # a Unix socket
        return True
    address = ipaddress.ip_address(peer[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
