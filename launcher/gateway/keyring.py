"""The keys that hold now: those of the file and of the environment; a file that changes is noticed and taken over.

A file that cannot be used never opens the endpoint: at the start it is an error, later the last good keys hold and the
log says why.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from launcher.gateway.audit import AuditLog
from launcher.gateway.auth import Identity
from launcher.gateway.keyfile import NAME, PREFIX, Key, KeyFault, hash_of, read_keys, refuse_doubles

log = logging.getLogger("launcher.gateway")
VARIABLE = "LAUNCHER_API_KEYS"
SHORTEST_SECRET = 16  # characters, of keys that a person may have made up: they are hashed in memory only
Signature = tuple[int, ...]


class KeyRing:
    """The identities by the digest of their secret. Written by ``look`` and ``read`` alone."""

    def __init__(self, path: Path | None, fixed: Sequence[Key] = (), audit: AuditLog | None = None) -> None:
        """Reads the file, if there is one; ``fixed`` are the environment's keys. Raises KeyFault."""
        self._path, self._fixed, self._audit = path, tuple(fixed), audit
        self.identities: dict[bytes, Identity] = {}
        self.keys: tuple[Key, ...] = ()
        self._seen = self._signature()
        self._take(read_keys(path) if path is not None else ())
        self.wants_keys = bool(self.keys)  # also after the last one is gone, or the file has become unusable

    @property
    def is_live(self) -> bool:
        """Whether there is a file to look at."""
        return self._path is not None

    def look(self) -> None:
        """Takes the file over if it has changed since it was last read; one that cannot be used is only logged."""
        if self._signature() != self._seen:
            with contextlib.suppress(KeyFault):
                self.read()

    def read(self) -> None:
        """Takes the file over. Raises KeyFault for one that cannot be used: then the keys that were read before hold."""
        if self._path is None:
            raise KeyFault("no file of keys is in use: gateway.auth is none", "Set gateway.auth to auto or keys.")
        self._seen = self._signature()  # before reading: what changes meanwhile shows at the next look
        before = self.keys
        try:
            keys = read_keys(self._path)
            if not keys and not self._path.exists() and len(before) > len(self._fixed):
                raise KeyFault(f"{self._path}: is gone", "Put it back, or add keys with `launcher key add`.")
            self._take(keys)
        except KeyFault as fault:
            self.wants_keys = True
            log.error("%s. The keys that were read before still hold. %s", fault.message.rstrip("."), fault.hint)
            self._note(f"failed: {fault.message}")
            raise
        self.wants_keys = self.wants_keys or bool(self.keys)
        if changes := ", ".join(_changes(before, self.keys)):
            log.info("%s: %s", self._path, changes)
            self._note(changes)

    def _take(self, from_file: Sequence[Key]) -> None:
        """Raises KeyFault before anything is changed."""
        keys = (*self._fixed, *from_file)
        if self._fixed:
            refuse_doubles(keys, f"{self._path} with {VARIABLE}")
        known = {identity.key_id: identity for identity in self.identities.values()}
        identities = {}
        for key in keys:
            identity = known.get(key.id)
            if identity is None:
                identity = Identity(key)
            else:
                identity.follow(key)
            identities[identity.digest] = identity
        self.keys, self.identities = keys, identities

    def _signature(self) -> Signature:
        """What changes when the file does: it is replaced whole, or edited in its place."""
        if self._path is None:
            return ()
        try:
            found = os.stat(self._path)
        except OSError as error:
            return (error.errno or 0,)
        return found.st_mtime_ns, found.st_ino, found.st_size, found.st_mode

    def _note(self, result: str) -> None:
        if self._audit is not None:
            self._audit.record("gateway", "key.reload", str(self._path), result)

    def __repr__(self) -> str:
        return f"<KeyRing {len(self.identities)}>"


def keys_of_environment(value: str, variable: str = VARIABLE) -> tuple[Key, ...]:
    """Keys given as ``secret,secret`` or ``name=secret,…``, with defaults. Raises KeyFault, never showing a secret."""
    keys = []
    for number, part in enumerate((part.strip() for part in value.split(",")), 1):
        if not part:
            continue
        name, _, secret = part.partition("=")
        if not NAME.fullmatch(name) or not secret.strip("="):  # '=' at the end is base64's padding
            name, secret = f"env-{number}", part
        secret = secret.strip()
        if len(secret) < SHORTEST_SECRET or not secret.isascii() or not secret.isprintable() or " " in secret:
            raise KeyFault(
                f"{variable}: key {number} is not {SHORTEST_SECRET} or more printable ASCII characters without spaces",
                f"Make one that cannot be guessed: {PREFIX}$(openssl rand -hex 32)",
            )
        keys.append(Key(id=f"env-{number}", name=name, sha256=hash_of(secret)))
    refuse_doubles(keys, variable)
    return tuple(keys)


def _changes(before: Sequence[Key], after: Sequence[Key]) -> list[str]:
    """What is different, for people: added alice (3f2a…), revoked bob."""
    old, new = {key.id: key for key in before}, {key.id: key for key in after}
    said = [f"removed {key.name} ({key.id})" for key in before if key.id not in new]
    for key in after:
        was = old.get(key.id)
        if was is None:
            said.append(f"added {key.name} ({key.id})")
        elif was.revoked is None and key.revoked is not None:
            said.append(f"revoked {key.name} ({key.id})")
        elif was != key:
            said.append(f"changed {key.name} ({key.id})")
    return said
