"""API keys over HTTP: the same file that `launcher key` writes, so that either sees what the other did."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from secrets import token_hex

from launcher.control.models import KeyState, NewKey
from launcher.errors import LauncherError
from launcher.gateway.keyfile import Key, changing, hash_of, new_secret, read_keys, written
from launcher.gateway.modes import PRIORITIES


class NoSuchKey(LauncherError):
    """An id that no key has."""


def list_keys(path: Path) -> list[KeyState]:
    """All keys of the file, revoked ones too. Raises KeyFault."""
    return [shown(key) for key in read_keys(path)]


def add_key(path: Path, wanted: NewKey) -> tuple[KeyState, str, bool]:
    """The new key, its secret, which is kept nowhere, and whether it is the file's first.

    Raises KeyFault, also for a name that is taken.
    """
    secret = new_secret()
    key = Key(
        id=token_hex(4),
        name=wanted.name,
        sha256=hash_of(secret),
        priority=PRIORITIES[wanted.priority],
        max_priority=PRIORITIES[wanted.max_priority or wanted.priority],
        weight=wanted.weight,
        requests_per_minute=wanted.requests_per_minute,
        tokens_per_minute=wanted.tokens_per_minute,
        is_admin=wanted.is_admin,
        created=time.time(),
        expires=wanted.expires.timestamp() if wanted.expires is not None else None,
    )
    with changing(path) as keys:
        is_first = not keys
        keys.append(key)
    return shown(key), secret, is_first


def revoke_key(path: Path, key_id: str) -> KeyState:
    """The key as it is now; one that was revoked already stays so. Raises NoSuchKey, KeyFault."""
    with changing(path) as keys:
        for number, key in enumerate(keys):
            if key.id == key_id:
                if key.revoked is None:
                    keys[number] = replace(key, revoked=time.time())
                return shown(keys[number])
        raise NoSuchKey(f"There is no key {key_id!r}.")


def shown(key: Key) -> KeyState:
    """A key without its hash."""
    entry = written(key)
    del entry["sha256"]
    return KeyState.model_validate(entry)
